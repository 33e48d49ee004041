# SPDX-License-Identifier: Apache-2.0
# One object library per instruction set: name, architectures it exists on, flags. Nothing else in
# the project may be compiled with these flags. dispatch.cpp gets the names of all instruction sets
# and of those that are built, best first as the calls stand.
set(RESIDUA_BASELINE_FLAGS "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND NOT MSVC)
  set(RESIDUA_BASELINE_FLAGS -march=x86-64-v2)
endif()

# MSVC has one flag per set; each includes FMA, F16C and BMI2.
set(RESIDUA_MSVC_avx2 /arch:AVX2)
set(RESIDUA_MSVC_avx512 /arch:AVX512)

function(residua_add_isa name processors)
  set_property(TARGET residua_core APPEND_STRING PROPERTY RESIDUA_KNOWN_ISAS "ISA(${name})")
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "${processors}")
    return()
  endif()
  set_property(TARGET residua_core APPEND_STRING PROPERTY RESIDUA_BUILT_ISAS "ISA(${name})")
  add_library(residua_isa_${name} OBJECT cpp/kernel/isa/${name}.cpp)
  target_link_libraries(residua_isa_${name} PRIVATE residua_flags)
  if(MSVC)
    target_compile_options(residua_isa_${name} PRIVATE ${RESIDUA_MSVC_${name}})
  else()
    target_compile_options(residua_isa_${name} PRIVATE ${ARGN})
  endif()
  set_property(GLOBAL APPEND PROPERTY RESIDUA_ISA_TARGETS residua_isa_${name})
  target_sources(residua_core PRIVATE $<TARGET_OBJECTS:residua_isa_${name}>)
endfunction()

# After the last residua_add_isa.
function(residua_list_isas)
  get_target_property(known residua_core RESIDUA_KNOWN_ISAS)
  get_target_property(built residua_core RESIDUA_BUILT_ISAS)
  set_source_files_properties(cpp/kernel/dispatch.cpp PROPERTIES COMPILE_DEFINITIONS
                              "RESIDUA_KNOWN_ISAS=${known};RESIDUA_BUILT_ISAS=${built}")
endfunction()
