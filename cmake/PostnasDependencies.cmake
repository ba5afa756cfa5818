# Finds every library, required or optional, and prints what the build will use.
find_package(PkgConfig REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)

set(_postnas_missing "")
# postnas_library(alias pkg-config-module debian-package): an imported target PN::<alias>.
function(postnas_library alias module package)
  pkg_check_modules(PN_${alias} QUIET IMPORTED_TARGET ${module})
  if(PN_${alias}_FOUND)
    add_library(PN::${alias} ALIAS PkgConfig::PN_${alias})
    message(STATUS "postnas: ${alias} ${PN_${alias}_VERSION}")
  else()
    set(_postnas_missing "${_postnas_missing} ${package}" PARENT_SCOPE)
  endif()
endfunction()

postnas_library(yaml yaml-0.1 libyaml-dev)
postnas_library(jansson jansson libjansson-dev)
postnas_library(xxhash libxxhash libxxhash-dev)
# Debian and Ubuntu let several OpenBLAS builds stand side by side, and `openblas` means whichever ranks highest; only
# the OpenMP one shares threads with our parallel regions. Linked from its own folder, it is also the one found at run
# time (RUNPATH).
set(_postnas_openmp_blas /usr/lib/${CMAKE_C_LIBRARY_ARCHITECTURE}/openblas-openmp/pkgconfig)
if(EXISTS ${_postnas_openmp_blas}/openblas.pc)
  if("$ENV{PKG_CONFIG_PATH}" STREQUAL "")
    set(ENV{PKG_CONFIG_PATH} ${_postnas_openmp_blas})
  else() # the user's own choice comes first
    set(ENV{PKG_CONFIG_PATH} "$ENV{PKG_CONFIG_PATH}:${_postnas_openmp_blas}")
  endif()
endif()
postnas_library(blas openblas libopenblas-openmp-dev)
postnas_library(hdf5 hdf5-serial libhdf5-dev)
if(NOT TARGET PN::hdf5)
  string(REPLACE " libhdf5-dev" "" _postnas_missing "${_postnas_missing}")
  postnas_library(hdf5 hdf5 libhdf5-dev)
endif()
postnas_library(pcre2 libpcre2-8 libpcre2-dev)
postnas_library(utf8proc libutf8proc libutf8proc-dev)
postnas_library(zlib zlib zlib1g-dev)
if(BUILD_TESTING OR NOT DEFINED BUILD_TESTING)
  postnas_library(check check check)
endif()
if(_postnas_missing)
  message(FATAL_ERROR "postnas: missing libraries; install them with scripts/setup.sh, or:\n  apt-get install${_postnas_missing}")
endif()

# Ask the library itself which build it is: 0 sequential, 1 threads of its own, 2 OpenMP.
if(NOT CMAKE_CROSSCOMPILING AND NOT DEFINED POSTNAS_BLAS_PARALLEL)
  set(_postnas_probe ${CMAKE_BINARY_DIR}/CMakeFiles/openblas_parallel.c)
  file(WRITE ${_postnas_probe} "int openblas_get_parallel(void);\nint main(void) { return openblas_get_parallel(); }\n")
  try_run(POSTNAS_BLAS_PARALLEL _postnas_probe_compiled ${CMAKE_BINARY_DIR} ${_postnas_probe}
    LINK_LIBRARIES PkgConfig::PN_blas OpenMP::OpenMP_C)
endif()
get_target_property(_postnas_blas_path PkgConfig::PN_blas INTERFACE_LINK_LIBRARIES)
if("${POSTNAS_BLAS_PARALLEL}" STREQUAL "2")
  message(STATUS "postnas: OpenBLAS is the OpenMP build (${_postnas_blas_path})")
else()
  message(WARNING "postnas: ${_postnas_blas_path} is not known to be OpenBLAS's OpenMP build; another build runs threads "
    "of its own beside ours and can be many times slower. Install libopenblas-openmp-dev, or point PKG_CONFIG_PATH at "
    "the folder of its openblas.pc, and configure in a fresh build folder.")
endif()

# Optional: found or left out, never required.
include(CheckLanguage)
option(POSTNAS_CUDA "build the CUDA backend when nvcc is found" ON)
set(POSTNAS_HAVE_CUDA OFF)
find_package(MPI QUIET COMPONENTS C)
if(MPI_C_FOUND)
  message(STATUS "postnas: MPI found (collectives over MPI: not in this version)")
else()
  message(STATUS "postnas: MPI not found; one process only")
endif()
message(STATUS "postnas: CUDA backend: not in this version; CPU backend only")
message(STATUS "postnas: NCCL: not in this version")
