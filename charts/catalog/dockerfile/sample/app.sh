#!/bin/sh
# Answers one request. FAIL_PERCENT of the answers are errors, to see how a rollout takes that.
read -r version < /srv/www/version
chance=100
# A program is started only where chance is asked for: under many requests a small container has no room for more.
[ "${FAIL_PERCENT:-0}" -eq 0 ] || chance=$(($(od -An -N2 -tu2 /dev/urandom) % 100))
if [ "$chance" -lt "${FAIL_PERCENT:-0}" ]; then
    printf 'Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\n'
    echo "version $version fails as it was told to"
else
    printf 'Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n'
    echo "${GREETING:-hello} from version $version"
fi
