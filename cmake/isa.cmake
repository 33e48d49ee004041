# SPDX-License-Identifier: Apache-2.0
# One object library per instruction set: name, source, flags, architecture it exists on.
# Nothing else in the project may be compiled with these flags.
set(RESIDUA_BASELINE_FLAGS "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND NOT MSVC)
  set(RESIDUA_BASELINE_FLAGS -march=x86-64-v2)
endif()

# MSVC has one flag per set; each includes FMA, F16C and BMI2.
set(RESIDUA_MSVC_avx2 /arch:AVX2)
set(RESIDUA_MSVC_avx512 /arch:AVX512)

function(residua_add_isa name definition processors)
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "${processors}")
    return()
  endif()
  add_library(residua_isa_${name} OBJECT cpp/kernel/isa/${name}.cpp)
  target_link_libraries(residua_isa_${name} PRIVATE residua_flags)
  if(MSVC)
    target_compile_options(residua_isa_${name} PRIVATE ${RESIDUA_MSVC_${name}})
  else()
    target_compile_options(residua_isa_${name} PRIVATE ${ARGN})
  endif()
  set_property(GLOBAL APPEND PROPERTY RESIDUA_ISA_TARGETS residua_isa_${name})
  target_compile_definitions(residua_core PRIVATE ${definition})
  target_sources(residua_core PRIVATE $<TARGET_OBJECTS:residua_isa_${name}>)
endfunction()
