# SPDX-License-Identifier: MIT
# The public headers: every .h of the library but those of folders named `detail` and those ending in
# -inl.h, which Highway includes once an instruction set. A public header compiles alone: CMake's own
# target faiss_gmm_verify_interface_header_sets compiles each, and the test `headers` builds that target.
file(GLOB_RECURSE public_headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/faiss_gmm/*.h)
list(FILTER public_headers EXCLUDE REGEX "(/detail/|-inl\\.h$)")
target_sources(faiss_gmm PUBLIC
    FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${public_headers})
set_target_properties(faiss_gmm PROPERTIES VERIFY_INTERFACE_HEADER_SETS ${FAISS_GMM_TOP_LEVEL})
