# SPDX-License-Identifier: MIT
# cmake -D CLANG_FORMAT=program -D SOURCE_DIR=folder -P check_format.cmake: fails on a source that
# clang-format would change and says where.
if(NOT CLANG_FORMAT)
    message("format: skipped, there is no clang-format-14")
    return()
endif()
set(sources)
foreach(folder faiss_gmm contrib bench datasets tests)
    foreach(suffix h cc cu cuh)
        file(GLOB_RECURSE found ${SOURCE_DIR}/${folder}/*.${suffix})
        list(APPEND sources ${found})
    endforeach()
endforeach()
list(LENGTH sources count)
execute_process(COMMAND ${CLANG_FORMAT} --dry-run -Werror --ferror-limit=1 ${sources} RESULT_VARIABLE failed)
if(failed)
    message(FATAL_ERROR "format: sources are not laid out as .clang-format says; "
        "run clang-format-14 -i on those named above")
endif()
message("format: ${count} sources checked")
