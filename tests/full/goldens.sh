#!/usr/bin/env bash
# Worst error of every encoder's golden case against its tolerance, over all stages, as a table; the published sizes of
# ../shared/golden included. Usage: tests/full/goldens.sh [build folder]; the tests must be built. The driver is the
# system's, or the one that VK_DRIVER_FILES names.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

status=0
TERRANE_TEST_FULL=1 ctest --test-dir "$build" -R '^models\.' -V >"$log" 2>&1 || status=$?
"$build/terrane" devices | head -3
printf '\n%-28s %8s %12s %10s %s\n' case outputs 'worst error' tolerance 'worst at'
sed -n 's/^[0-9]*: golden \([^ ]*\) *\([^ ]*\) *\([^ ]*\) (tolerance \([^)]*\))$/\1 \2 \3 \4/p' "$log" |
    awk '{ n[$1 " " $2]++ || count[$1]++
           if (!($1 in worst) || $3 / $4 > worst[$1] / limit[$1]) { worst[$1] = $3; limit[$1] = $4; at[$1] = $2 } }
         END { for (c in worst) printf "%-28s %8d %12.2e %10.1e %s\n", c, count[c], worst[c], limit[c], at[c] }' | sort
tail -n 8 "$log"
exit $status
