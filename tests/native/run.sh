#!/bin/bash
# Builds the native tests and runs them: run.sh plain|asan|tsan [ctest options]
# CC and CXX choose the compiler, BUILD_ROOT where it builds (default: build/native in the repository).
set -eu -o pipefail

case "${1:-}" in
  plain) sanitize="" ;;
  asan) sanitize=address ;;
  tsan) sanitize=thread ;;
  *) echo "usage: $0 plain|asan|tsan [ctest options]" >&2; exit 2 ;;
esac
mode=$1
shift

here=$(cd "$(dirname "$0")" && pwd)
build="${BUILD_ROOT:-$here/../../build/native}/$mode"
mkdir -p "$(dirname "$build")"
generator=()
if [ ! -f "$build/CMakeCache.txt" ] && command -v ninja > /dev/null; then generator=(-G Ninja); fi
cmake -S "$here" -B "$build" "${generator[@]}" -DSANITIZE="$sanitize" ${SIMULATOR_SOURCE:+"-DSIMULATOR_SOURCE=$SIMULATOR_SOURCE"} > "$build.configure.log" 2>&1 ||
  { cat "$build.configure.log"; exit 1; }
cmake --build "$build" --parallel "$(nproc)"

export ASAN_OPTIONS="detect_leaks=1:abort_on_error=0:exitcode=99:detect_stack_use_after_return=0"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
# Children of a fork start threads of their own here, as they do in real programs.
export TSAN_OPTIONS="halt_on_error=1:exitcode=98:die_after_fork=0:second_deadlock_stack=1"
# ThreadSanitizer leaves a program few places for the terabyte of addresses that the simulator reserves: with random
# addresses it does not always fit.
fixed_addresses=()
if [ "$mode" = tsan ]; then fixed_addresses=(setarch "$(uname -m)" --addr-no-randomize); fi
"${fixed_addresses[@]}" ctest --test-dir "$build" --output-on-failure --no-tests=error "$@"
