# The flags of all that is compiled here. Half of a compilation is reading headers of libraries, so a target reads them once
# (TESSERA_PCH); with that off, a file that forgets one is found. Under sanitizers only what computes is optimised.
function(tessera_flags target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wno-unknown-pragmas -ffp-contract=off
                         -fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=  # no message shows where the program was built
                         $<$<BOOL:${TESSERA_WERROR}>:-Werror>)
  if(TESSERA_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${TESSERA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${TESSERA_SANITIZE})
    if(target MATCHES "^tessera_(core|steplog)$")
      target_compile_options(${target} PRIVATE -O1)
    elseif(NOT target STREQUAL tessera_kernels)
      target_compile_options(${target} PRIVATE -O0)
    endif()
  endif()
  if(TESSERA_PCH AND NOT target MATCHES "^tessera_(kernels|mpi)$")
    target_precompile_headers(${target} PRIVATE <algorithm> <filesystem> <functional> <map> <memory> <optional> <set> <span>
                              <string> <vector> <fmt/core.h> ${ARGN})
  endif()
endfunction()

# The flags of test code: it is compiled more often than it runs.
function(tessera_test_flags target)
  tessera_flags(${target} <gtest/gtest.h> <gmock/gmock.h>)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
endfunction()

# tessera_module(name DEPENDS ...): the static library tessera_<name> of src/<name>/**.cpp.
function(tessera_module name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "src/comm/mpi/|src/cli/main.cpp")
  if(sources)
    add_library(tessera_${name} STATIC ${sources})
    target_include_directories(tessera_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(tessera_${name} PUBLIC ${ARG_DEPENDS})
    tessera_flags(tessera_${name})
  else()
    add_library(tessera_${name} INTERFACE)
    target_include_directories(tessera_${name} INTERFACE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(tessera_${name} INTERFACE ${ARG_DEPENDS})
  endif()
endfunction()

# A shared library that the program opens at run time.
function(tessera_plugin name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(${name} MODULE ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS})
  set_target_properties(${name} PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)  # an MPI outside the system's folders
  tessera_flags(${name})
endfunction()
