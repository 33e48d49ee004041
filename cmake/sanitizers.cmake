# SPDX-License-Identifier: Apache-2.0
# RESIDUA_SANITIZE=address,undefined | thread
set(RESIDUA_SANITIZE "" CACHE STRING "Comma-separated sanitizers for all targets")
if(RESIDUA_SANITIZE)
  add_compile_options(-fsanitize=${RESIDUA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${RESIDUA_SANITIZE})
endif()
