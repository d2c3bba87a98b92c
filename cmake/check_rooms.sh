#!/usr/bin/env bash
# A room includes its own headers and doors only: another room's private header is an error even where it would be found.
set -euo pipefail
cd "$(dirname "$0")/.."
status=0
for dir in runtime/*/ lua/ ; do
    room=$(basename "$dir")
    while IFS=: read -r file line header; do
        found=$(find runtime lua -name "$header" -not -path '*/build/*' | head -1)
        [ -z "$found" ] && continue # a library's header
        owner=$(echo "$found" | sed -E 's#^(runtime/[^/]+|lua)/.*#\1#; s#^runtime/##')
        [ "$owner" = "$room" ] || [ "$header" = "$owner.h" ] || [ "$header" = recipe.h ] || {
            echo "$file:$line: includes $header, which is private to $owner/" >&2
            status=1
        }
    done < <(grep -rnoE --include='*.[ch]' '^#include "[^"]+"' "$dir" | sed -E 's/#include "(.*\/)?([^"\/]+)"/\2/')
done
exit $status
