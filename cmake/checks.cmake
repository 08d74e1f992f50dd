# SPDX-License-Identifier: MIT
# Checks of the sources themselves: tests `headers` and `format`, target `tidy`.

# Every public header compiles alone.
add_test(NAME headers
    COMMAND ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR} --config $<CONFIG>
        --parallel 2 --target faiss_gmm_verify_interface_header_sets)
set_tests_properties(headers PROPERTIES TIMEOUT 600)

# Every source is laid out as .clang-format says. Other versions of clang-format lay out otherwise.
find_program(FAISS_GMM_CLANG_FORMAT NAMES clang-format-14)
mark_as_advanced(FAISS_GMM_CLANG_FORMAT)
add_test(NAME format
    COMMAND ${CMAKE_COMMAND} -D CLANG_FORMAT=${FAISS_GMM_CLANG_FORMAT}
        -D SOURCE_DIR=${PROJECT_SOURCE_DIR} -P ${PROJECT_SOURCE_DIR}/cmake/check_format.cmake)
set_tests_properties(format PROPERTIES SKIP_REGULAR_EXPRESSION "format: skipped")

# `cmake --build build/dev --target tidy`: clang-tidy over the library; minutes, so not a test. g++ makes
# C++17 by default, so its command lines do not say it, and clang 14 would assume C++14.
find_program(FAISS_GMM_RUN_CLANG_TIDY NAMES run-clang-tidy-14 run-clang-tidy)
mark_as_advanced(FAISS_GMM_RUN_CLANG_TIDY)
if(FAISS_GMM_RUN_CLANG_TIDY AND CMAKE_EXPORT_COMPILE_COMMANDS)
    add_custom_target(tidy
        COMMAND ${FAISS_GMM_RUN_CLANG_TIDY} -quiet -p ${PROJECT_BINARY_DIR} -extra-arg=-std=gnu++17
            "^${PROJECT_SOURCE_DIR}/faiss_gmm/.*\\.cc$"
        USES_TERMINAL VERBATIM)
endif()
