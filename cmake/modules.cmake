# The flags of all that is compiled here. Under sanitizers only what computes is optimised, and little, since kernels take twice
# the time otherwise.
function(tessera_flags target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wno-unknown-pragmas -ffp-contract=off
                         -fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=  # no message shows where the program was built
                         $<$<BOOL:${TESSERA_WERROR}>:-Werror>)
  if(TESSERA_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${TESSERA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${TESSERA_SANITIZE})
    if(target MATCHES "^tessera_(core|kernels|comm|io|steplog)$")
      target_compile_options(${target} PRIVATE -O1)
    else()
      target_compile_options(${target} PRIVATE -O0)
    endif()
  endif()
endfunction()

# Half of a compilation is reading headers of libraries, so a target reads them once (TESSERA_PCH); with that off, a file that
# forgets one is found. Modules of the same flags, those of what they link, read those of one of them.
set(TESSERA_PCH_OF_comm core)
set(TESSERA_PCH_OF_steplog io)
set(TESSERA_PCH_OF_train score)
set(TESSERA_PCH_OF_infer score)
set(TESSERA_PCH_OF_compress score)
set(TESSERA_PCH_OF_cli score)

# tessera_precompile(prefix name suffix headers ...): of the target <prefix><name><suffix>, name that of a module.
function(tessera_precompile prefix name suffix)
  set(target ${prefix}${name}${suffix})
  set(owner ${prefix}${TESSERA_PCH_OF_${name}}${suffix})
  if(NOT TESSERA_PCH)
    return()
  endif()
  if(DEFINED TESSERA_PCH_OF_${name} AND TARGET ${owner})
    target_precompile_headers(${target} REUSE_FROM ${owner})
  else()
    target_precompile_headers(${target} PRIVATE <algorithm> <filesystem> <functional> <map> <memory> <optional> <set> <span>
                              <string> <vector> <fmt/core.h> ${ARGN})
  endif()
endfunction()

# The flags of test code: it is compiled more often than it runs.
function(tessera_test_flags target)
  tessera_flags(${target})
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
endfunction()

# tessera_module(name DEPENDS ...): the static library tessera_<name> of src/<name>/**.cpp.
function(tessera_module name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "src/comm/mpi/|src/cli/main.cpp${TESSERA_LEFT_OUT}")
  if(sources)
    add_library(tessera_${name} STATIC ${sources})
    target_include_directories(tessera_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(tessera_${name} PUBLIC ${ARG_DEPENDS})
    tessera_flags(tessera_${name})
    if(NOT name STREQUAL kernels)
      tessera_precompile(tessera_ ${name} "")
    endif()
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
