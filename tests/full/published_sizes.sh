#!/usr/bin/env bash
# Every encoder at its published size: a made-up checkpoint, one scene of its bands and dates, and what that takes, as a
# table. Usage: tests/full/published_sizes.sh [--largest MIB] [--only REGEX] [build folder]. Checkpoints above --largest
# are left out; files are removed as soon as they are used. Needs jq, gdal_create, gdalinfo and GNU time.
set -euo pipefail
cd "$(dirname "$0")/../.."
largest=0 only=.
while [[ ${1:-} == --* ]]; do
    case $1 in
    --largest) largest=$2 ;;
    --only) only=$2 ;;
    *) echo "unknown option $1" >&2 && exit 2 ;;
    esac
    shift 2
done
terrane=$(realpath "${1:-build/release}")/terrane
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# Bands, window and dates of an encoder, as shell assignments; an encoder of any bands gets three.
describe() {
    "$terrane" models show "$1" --json | jq -r '.model.input | (
        "bands=" + ([.bands[].name] | if length == 0 then ["red", "green", "blue"] else . end | join(",") | @sh),
        "side=\(.window) dates=\(.min_dates)")'
}

# One file per date, each band of a value of its own.
make_scenes() {
    local burn=() i count
    count=$(tr , '\n' <<<"$bands" | wc -l)
    for ((i = 1; i <= count; i++)); do burn+=(-burn "0.$i"); done
    for ((i = 0; i < dates; i++)); do
        gdal_create -q -of GTiff -ot Float32 -bands "$count" -outsize "$side" "$side" "${burn[@]}" -a_srs EPSG:32633 \
            -a_ullr 500000 5000100 500100 5000000 "$(date -u -d "2018-01-15 +$((i * 20)) days" +%Y-%m-%d).tif"
    done
}

# Fails when the embedding holds no numbers.
check_output() {
    gdalinfo -json -mm out.tif | jq -e '[.bands[].computedMax] | length > 0 and all(. != null and . == .)' >/dev/null
}

failed=0
printf '%-26s %9s %6s %7s %9s %10s %9s  %s\n' encoder 'file MiB' bands dates 'write s' 'embed s' 'peak MiB' outcome
while read -r name parameters; do
    mib=$((parameters * 4 / 1048576))
    if ((largest && mib > largest)); then
        printf '%-26s %9d %*s left out\n' "$name" "$mib" 46 ''
        continue
    fi
    eval "$(describe "$name")"
    make_scenes
    outcome=ok
    start=$(date +%s.%N)
    "$terrane" synthesize "$name" w.pt -q >log 2>&1 || outcome="no checkpoint: $(tail -1 log)"
    written=$(date +%s.%N)
    if [[ $outcome == ok ]]; then
        /usr/bin/time -q -o took -f '%e %M' "$terrane" embed 20*.tif --model "$name" --weights w.pt -q \
            --band-names "$bands" --normalize none --tile "$side" --overlap 0 -o out.tif >log 2>&1 ||
            outcome="failed: $(tail -1 log)"
        read -r seconds peak <took
    fi
    if [[ $outcome == ok ]] && ! check_output; then outcome='no numbers'; fi
    [[ $outcome == ok ]] || failed=1
    printf '%-26s %9d %6d %7d %9.1f %10.1f %9d  %s\n' "$name" $(($(stat -c %s w.pt 2>/dev/null || echo 0) / 1048576)) \
        "$(tr , '\n' <<<"$bands" | wc -l)" "$dates" "$(bc <<<"$written - $start")" "${seconds:-0}" \
        $((${peak:-0} / 1024)) "$outcome"
    rm -f ./*
done < <("$terrane" models --json | jq -r --arg only "$only" \
    '.models[] | select(.licence != null and (.name | test($only))) | "\(.name) \(.parameters)"')
exit $failed
