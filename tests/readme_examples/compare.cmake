# SPDX-License-Identifier: MIT
# Fails unless README holds EXAMPLE, word for word, as a C++ block.
file(READ ${README} readme)
file(READ ${EXAMPLE} example)
string(FIND "${readme}" "```cpp\n${example}```" at)
if(at EQUAL -1)
    message(FATAL_ERROR "README.md does not hold ${EXAMPLE} word for word: copy it there")
endif()
