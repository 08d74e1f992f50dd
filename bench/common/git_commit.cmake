# SPDX-License-Identifier: MIT
# Writes HEADER with the commit of SOURCE_DIR; "-dirty" marks changes that are not committed.
execute_process(COMMAND git -C ${SOURCE_DIR} describe --always --abbrev=12 --dirty --exclude=*
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
    set(commit unknown) # an archive of the sources, or no git
endif()
file(CONFIGURE OUTPUT ${HEADER} CONTENT "#define FAISS_GMM_GIT_COMMIT \"${commit}\"\n")
