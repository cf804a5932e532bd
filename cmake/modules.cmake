# The flags of all that is compiled here. Under sanitizers only what is in TESSERA_OPTIMISED is optimised, and little, since kernels
# take twice the time otherwise.
set(TESSERA_OPTIMISED core kernels comm io steplog)
function(tessera_flags target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wno-unknown-pragmas -ffp-contract=off
                         -fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=  # no message shows where the program was built
                         $<$<BOOL:${TESSERA_WERROR}>:-Werror>)
  if(TESSERA_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${TESSERA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${TESSERA_SANITIZE})
    string(REPLACE "tessera_" "" module ${target})
    if(module IN_LIST TESSERA_OPTIMISED)
      target_compile_options(${target} PRIVATE -O1)
    else()
      target_compile_options(${target} PRIVATE -O0)
    endif()
  endif()
endfunction()

# Half of a compilation is reading headers of libraries, so they are read once (TESSERA_PCH) for all modules, and once for all
# tests; with that off, a file that forgets one is found. Those who share must have the same macros and be optimised, or none be.
function(tessera_precompile target owner)
  if(NOT TESSERA_PCH)
    return()
  endif()
  if(TARGET ${owner} AND NOT target STREQUAL owner)
    target_precompile_headers(${target} REUSE_FROM ${owner})
  else()
    target_precompile_headers(${target} PRIVATE <algorithm> <chrono> <filesystem> <functional> <map> <memory> <optional> <set>
                              <span> <string> <vector> <fmt/core.h> ${ARGN})
  endif()
endfunction()

# The flags of test code: it is compiled more often than it runs.
function(tessera_test_flags target)
  tessera_flags(${target})
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
endfunction()

# What computes is optimised as far as it goes (-O3). The modules that call it compile in three quarters of the time with -O1, and
# no run is slower for it; the files among them that have loops of their own are named here. No bit of a result depends on it.
set(TESSERA_CALLERS io steplog train compress cli)
set(TESSERA_COMPUTING_FILES src/compress/eigen.cpp src/compress/matrix.cpp src/train/spsa/seed_pool.cpp
    src/train/spsa/simulate/quadratic.cpp)

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
    if(name IN_LIST TESSERA_CALLERS)
      target_compile_options(tessera_${name} PRIVATE $<$<CONFIG:Release>:-O1>)
    endif()
    if(TESSERA_SANITIZE AND NOT name IN_LIST TESSERA_OPTIMISED)
      tessera_precompile(tessera_${name} tessera_model)
    else()
      tessera_precompile(tessera_${name} tessera_core)
    endif()
  else()
    add_library(tessera_${name} INTERFACE)
    target_include_directories(tessera_${name} INTERFACE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(tessera_${name} INTERFACE ${ARG_DEPENDS})
  endif()
endfunction()

set_source_files_properties(${TESSERA_COMPUTING_FILES} PROPERTIES COMPILE_OPTIONS $<$<CONFIG:Release>:-O3>)

# A shared library that the program opens at run time.
function(tessera_plugin name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(${name} MODULE ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS})
  set_target_properties(${name} PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)  # an MPI outside the system's folders
  tessera_flags(${name})
endfunction()
