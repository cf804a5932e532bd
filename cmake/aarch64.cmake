# Toolchain: the program for 64-bit ARM, made on another machine. scripts/check_aarch64 uses it and lays out TESSERA_SYSROOT, a
# folder with Debian's arm64 libraries.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES TESSERA_SYSROOT)
set(CMAKE_SYSROOT ${TESSERA_SYSROOT})

set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${TESSERA_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${TESSERA_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${TESSERA_SYSROOT}/usr/share/pkgconfig)

# Debian keeps the serial HDF5 in a folder of its own, which only its compiler wrapper names: that of this machine knows no other.
set(HDF5_ROOT ${TESSERA_SYSROOT}/usr/lib/aarch64-linux-gnu/hdf5/serial)
set(HDF5_C_COMPILER_EXECUTABLE HDF5_C_COMPILER_EXECUTABLE-NOTFOUND CACHE FILEPATH "none")
