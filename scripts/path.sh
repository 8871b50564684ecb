# Sourced by the scripts: puts the usual places of cargo and Go on PATH where a shell without a profile lacks them.
for dir in "${CARGO_HOME:-${HOME:-/root}/.cargo}/bin" /usr/local/go/bin /usr/sbin; do
    case ":$PATH:" in
    *":$dir:"*) ;;
    *) [ ! -d "$dir" ] || PATH="$PATH:$dir" ;;
    esac
done
export PATH
