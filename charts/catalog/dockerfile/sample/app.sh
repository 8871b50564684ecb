#!/bin/sh
# Answers one request. FAIL_PERCENT of the answers are errors, to see how a rollout takes that.
version=$(cat /srv/www/version)
chance=$(($(od -An -N2 -tu2 /dev/urandom) % 100))
if [ "$chance" -lt "${FAIL_PERCENT:-0}" ]; then
    printf 'Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\n'
    echo "version $version fails as it was told to"
else
    printf 'Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n'
    echo "${GREETING:-hello} from version $version"
fi
