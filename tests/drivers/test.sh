#!/usr/bin/env bash
# Runs the built tests on a driver that prepare.sh made ready.
# Usage: tests/drivers/test.sh BUILD DIR NAME [ctest arguments]
#   BUILD: the build folder; DIR: the folder of prepare.sh; NAME: stock, mesa25, mesa26, swiftshader, validation (the
#   system's driver with storage buffers, synchronization checked), or what else stands in DIR/bin as run-NAME and can
#   run kernels
# Left out, as they would meet the system's driver: the test that installs Terrane, the one that takes all drivers away, and,
# where the wrapper brings its own loader of programs, those that start themselves again.
set -euo pipefail

[[ $# -ge 3 ]] || { sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2 && exit 2; }
build=$(cd "$1" && pwd)
wrapper=$(cd "$2/bin" && pwd)/run-$3
name=$3
shift 3
[[ -x $wrapper ]] || { echo "test.sh: no $wrapper: tests/drivers/prepare.sh makes it" >&2 && exit 2; }

# The tests as they are, each started through the wrapper, and the command that they start, too.
tests=$(mktemp -d)
trap 'rm -rf "$tests"' EXIT
{ echo '#!/usr/bin/env bash' && echo "exec '$wrapper' '$build/terrane' \"\$@\""; } >"$tests/terrane"
chmod +x "$tests/terrane"
sed -E -e "s,^(add_test\([^ ]+ )\",\1\"$wrapper\" \"," -e "s,TERRANE_COMMAND=[^;\"]*,TERRANE_COMMAND=$tests/terrane," \
    "$build/tests/CTestTestfile.cmake" >"$tests/CTestTestfile.cmake"
grep -q "$wrapper" "$tests/CTestTestfile.cmake" || { echo "test.sh: no tests in $build" >&2 && exit 2; }

left_out='^install\.|^command\.failures$'
if grep -q -- --library-path "$wrapper"; then left_out+='|^learn\.fit_resume$|^data_room\.data_hostile$'; fi
echo "== $name"
ctest --test-dir "$tests" --output-on-failure -E "$left_out" "$@"
