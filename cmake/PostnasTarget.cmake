# Compiler flags, one static library per room (folder), one executable per test file.

option(POSTNAS_WERROR "treat warnings as errors" ON)
set(POSTNAS_SANITIZE "" CACHE STRING "address, undefined or thread: build with that sanitizer")
set(POSTNAS_EXTRA_BLOCKS "" CACHE PATH "folder of blocks outside the tree, NAME.c defining pn_block_NAME each")
option(POSTNAS_FUZZ "make tests/fuzz libFuzzer programs (clang); otherwise they replay the files kept there" OFF)

function(postnas_flags target)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:C>:-Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes
    -Wmissing-prototypes -Wpointer-arith -Wcast-align>)
  # gcc cannot see that pn_fail_at never returns PN_OK, so every out-parameter behind PN_TRY looks uninitialised to it.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANG_AND_ID:C,GNU>:-Wno-maybe-uninitialized>)
  target_compile_definitions(${target} PRIVATE _GNU_SOURCE)
  if(POSTNAS_WERROR)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:C>:-Werror>)
  endif()
  # Portable by default: x86-64-v3; what pays from AVX-512 is chosen at run time (function multiversioning).
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:C>:-march=x86-64-v3>)
  endif()
  # Sums may be reordered by vectorisation; NaN and infinity keep their meaning. ISO C mode would keep a * b + c two
  # operations, half the speed of a fused one.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:C>:-fno-math-errno -fno-trapping-math
    -ffp-contract=fast>)
  if(POSTNAS_SANITIZE)
    target_compile_definitions(${target} PRIVATE PN_NO_CLONES) # sanitizer runtimes start after clones are chosen
    target_compile_options(${target} PRIVATE -fsanitize=${POSTNAS_SANITIZE} -fno-omit-frame-pointer -g)
    if(POSTNAS_SANITIZE MATCHES "undefined")
      target_compile_options(${target} PRIVATE -fno-sanitize-recover=all)
    endif()
    target_link_options(${target} PRIVATE -fsanitize=${POSTNAS_SANITIZE})
  endif()
endfunction()

# postnas_room(name dir LINKS targets...): library pn_<name> of every .c under dir; its headers are included by file name.
function(postnas_room name dir)
  cmake_parse_arguments(ROOM "" "" "LINKS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${dir}/*.c)
  if(NOT sources)
    add_library(pn_${name} INTERFACE)
    target_include_directories(pn_${name} INTERFACE ${CMAKE_SOURCE_DIR}/${dir})
    target_link_libraries(pn_${name} INTERFACE ${ROOM_LINKS})
    return()
  endif()
  add_library(pn_${name} STATIC ${sources})
  target_include_directories(pn_${name} PUBLIC ${CMAKE_SOURCE_DIR}/${dir})
  target_link_libraries(pn_${name} PUBLIC ${ROOM_LINKS})
  postnas_flags(pn_${name})
endfunction()

# postnas_extra_blocks(target dir): every NAME.c of dir joins the target, as a row PN_BLOCK(NAME) at the end of blocks.def.
function(postnas_extra_blocks target dir)
  if(dir STREQUAL "")
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.c)
  if(NOT sources)
    message(FATAL_ERROR "postnas: POSTNAS_EXTRA_BLOCKS=${dir} has no .c file; name a folder with one for every block")
  endif()
  set(rows "")
  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WLE)
    if(NOT name MATCHES "^[a-z][a-z0-9_]*$")
      message(FATAL_ERROR "postnas: ${source}: a block's file is its name, letters a to z, digits and _, and .c")
    elseif(EXISTS ${CMAKE_SOURCE_DIR}/src/blocks/${name}.c)
      message(FATAL_ERROR "postnas: ${source}: src/blocks/${name}.c is there already; choose another name")
    endif()
    string(APPEND rows "PN_BLOCK(${name})\n")
  endforeach()
  set(def ${CMAKE_BINARY_DIR}/extra_blocks.def)
  file(CONFIGURE OUTPUT ${def} CONTENT "${rows}" @ONLY) # keeps its time when nothing changes
  target_sources(${target} PRIVATE ${sources})
  target_compile_definitions(${target} PRIVATE PN_EXTRA_BLOCKS="${def}")
endfunction()

# postnas_test(room file [LABELS l...]): Check-based test executable tests/<room>/<file>.c, run by ctest.
function(postnas_test room file)
  cmake_parse_arguments(T "" "TIMEOUT" "LABELS;LINKS" ${ARGN})
  set(name test_${room}_${file})
  add_executable(${name} ${CMAKE_SOURCE_DIR}/tests/${room}/${file}.c)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE pn_cli PN::check ${T_LINKS})
  target_compile_definitions(${name} PRIVATE POSTNAS_SOURCE_DIR="${CMAKE_SOURCE_DIR}" POSTNAS_BIN="${CMAKE_BINARY_DIR}/postnas")
  postnas_flags(${name})
  add_dependencies(${name} postnas) # tests run the program itself
  add_test(NAME ${room}/${file} COMMAND ${name})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 300)
  endif()
  set(environment OMP_WAIT_POLICY=passive) # tests run side by side: threads that wait must sleep
  if(POSTNAS_SANITIZE)
    math(EXPR T_TIMEOUT "${T_TIMEOUT} * 4")
    list(APPEND environment CK_TIMEOUT_MULTIPLIER=4 UBSAN_OPTIONS=print_stacktrace=1)
  endif()
  set_tests_properties(${room}/${file} PROPERTIES TIMEOUT ${T_TIMEOUT} LABELS "cpu;${T_LABELS}" SKIP_RETURN_CODE 77
    ENVIRONMENT "${environment}")
endfunction()

# postnas_fuzz_target(name): tests/fuzz/<name>.c as the program fuzz_<name>: with POSTNAS_FUZZ a fuzzer (target `fuzz`
# builds them all), otherwise a test that replays tests/fuzz/corpus/<name> and the cases found so far.
function(postnas_fuzz_target name)
  set(here ${CMAKE_SOURCE_DIR}/tests/fuzz)
  add_executable(fuzz_${name} ${here}/${name}.c)
  target_link_libraries(fuzz_${name} PRIVATE pn_search)
  postnas_flags(fuzz_${name})
  if(POSTNAS_FUZZ)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    if(NOT TARGET fuzz)
      add_custom_target(fuzz)
    endif()
    add_dependencies(fuzz fuzz_${name})
    return()
  endif()
  target_sources(fuzz_${name} PRIVATE ${here}/replay.c)
  add_test(NAME fuzz/${name} COMMAND fuzz_${name} ${here}/corpus/${name} ${here}/cases/${name})
  set_tests_properties(fuzz/${name} PROPERTIES TIMEOUT 300 LABELS cpu)
endfunction()
