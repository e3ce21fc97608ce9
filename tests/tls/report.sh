#!/bin/sh
# Judges the relay's TLS from outside, by sslyze and by OpenSSL, and writes a report in Markdown.
#
#   RELAY_BIN=target/release/relay SSLYZE=sslyze tests/tls/report.sh > docs/tls-report.md
#
# sslyze comes from PyPI: python3 -m venv venv && venv/bin/pip install sslyze. The relay is started
# on loopback with a certificate of its own. Ends with an error when something is not as it should be.
set -eu
: "${RELAY_BIN:?names the relay program}"
sslyze=${SSLYZE:-sslyze}
port=${PORT:-17843}
dir=$(mktemp -d)
relay=
trap 'test -z "$relay" || kill "$relay" 2>/dev/null; rm -rf "$dir"' EXIT INT TERM

# self_signed NAME KEY…: NAME.key of this kind and NAME.crt, which signed itself.
self_signed() {
    name=$1
    shift
    openssl req -x509 "$@" -noenc -days 90 -subj "/CN=localhost" \
        -addext subjectAltName=DNS:localhost -keyout "$dir/$name.key" -out "$dir/$name.crt" 2>/dev/null
    chmod 600 "$dir/$name.key"
}
self_signed tls -newkey ec -pkeyopt ec_paramgen_curve:P-256
self_signed rsa -newkey rsa:2048
self_signed authority -newkey ec -pkeyopt ec_paramgen_curve:P-256
self_signed stranger -newkey ec -pkeyopt ec_paramgen_curve:P-256
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 90 -subj /CN=client \
    -addext basicConstraints=critical,CA:FALSE -CA "$dir/authority.crt" -CAkey "$dir/authority.key" \
    -keyout "$dir/client.key" -out "$dir/client.crt" 2>/dev/null

# serve NAME VARIABLE…: the relay with that certificate and these variables, in place of the one before.
serve() {
    trusted=$dir/$1.crt key=$dir/$1.key
    shift
    if [ -n "$relay" ]; then
        kill "$relay"
        wait "$relay" || true
    fi
    # What the one before said would be taken for this one's.
    : >"$dir/log"
    env -i HOME="$dir" HOST=127.0.0.1 PORT="$port" RELAY_MODE=dev RELAY_TLS=1 RELAY_DRAIN_MS=0 \
        RELAY_TLS_CERT_PATH="$trusted" RELAY_TLS_KEY_PATH="$key" "$@" \
        ${RELAY_DRIVER:+RELAY_DRIVER="$RELAY_DRIVER"} "$RELAY_BIN" serve >"$dir/log" 2>&1 &
    relay=$!
    tries=0
    until grep -q '^\[relay\] listening' "$dir/log"; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ] || ! kill -0 "$relay" 2>/dev/null; then
            cat "$dir/log" >&2
            exit 1
        fi
        sleep 0.1
    done
}
serve tls

failed=0
# client ARGUMENTS…: a request through OpenSSL's client; what it prints.
client() {
    printf 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' |
        timeout 10 openssl s_client -connect "127.0.0.1:$port" -servername localhost \
            -CAfile "$trusted" -verify_return_error -ign_eof "$@" 2>&1 || true
}
# table: the head of one.
table() {
    printf '| what the client offers | outcome | |\n|---|---|---|\n'
}
# row WHAT WANTED ARGUMENTS…: whether a connection with these arguments is answered.
row() {
    what=$1 wanted=$2
    shift 2
    if client "$@" | grep -aq 'HTTP/1.1 200'; then found=answered; else found=refused; fi
    if [ "$found" = "$wanted" ]; then verdict=ok; else verdict=WRONG failed=1; fi
    printf '| %s | %s | %s |\n' "$what" "$found" "$verdict"
}

# scan FILE ARGUMENTS…: what sslyze finds.
scan() {
    found_in=$1
    shift
    "$sslyze" --mozilla_config disable --sni localhost "$@" "127.0.0.1:$port" >"$found_in" 2>&1 || failed=1
}
# suites VERSION: those that sslyze saw accepted, each on a line.
suites() {
    awk -v heading=" * $1 Cipher Suites:" '
        index($0, heading) == 1 { inside = 1; next }
        /^ [*] / { inside = 0 }
        inside && $1 ~ /^(TLS|SSL)_/ { print $1 }' "$found_in" | LC_ALL=C sort
}
# accepts VERSION SUITE…: whether these of the version's suites were accepted, and no others.
accepts() {
    version=$1
    shift
    found=$(suites "$version" | tr '\n' ' ')
    wanted=$(for suite in "$@"; do echo "$suite"; done | LC_ALL=C sort | tr '\n' ' ')
    # Where sslyze says nothing of a version, nobody knows.
    if [ "$found" = "$wanted" ] && grep -qF " * $version Cipher Suites:" "$found_in"; then
        verdict=ok
    else
        verdict=WRONG failed=1
    fi
    found=${found% }
    printf '| %s | %s | %s |\n' "$version" "${found:-none}" "$verdict"
}
# accepts_modern KIND: whether it is what rustls offers with a key of this kind.
accepts_modern() {
    printf '| version | suites accepted | |\n|---|---|---|\n'
    accepts "TLS 1.2" "TLS_ECDHE_$1_WITH_AES_128_GCM_SHA256" "TLS_ECDHE_$1_WITH_AES_256_GCM_SHA384" \
        "TLS_ECDHE_$1_WITH_CHACHA20_POLY1305_SHA256"
    accepts "TLS 1.3" TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256
}

cat <<END
# TLS report

Made by \`tests/tls/report.sh\` on $(date -u +%Y-%m-%d), of the program $("$RELAY_BIN" --version) as it is configured without any
setting but certificate and key (ECDSA P-256, self-signed, but for the last parts). \`$(openssl version | cut -d' ' -f1-2)\`, sslyze
$("$(dirname "$sslyze")/python" -c 'from importlib.metadata import version; print(version("sslyze"))' 2>/dev/null || echo "of unknown version").

## OpenSSL as the client

END
table
for suite in TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256; do
    row "TLS 1.3, $suite" answered -tls1_3 -ciphersuites "$suite"
done
for suite in AES128-GCM-SHA256 AES256-GCM-SHA384 CHACHA20-POLY1305; do
    row "TLS 1.2, ECDHE-ECDSA-$suite" answered -tls1_2 -cipher "ECDHE-ECDSA-$suite"
done
for suite in ECDHE-ECDSA-AES128-SHA ECDHE-ECDSA-AES128-SHA256 AES128-GCM-SHA256 \
    DHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-GCM-SHA256 NULL-SHA; do
    row "TLS 1.2, $suite" refused -tls1_2 -cipher "$suite:@SECLEVEL=0"
done
row "TLS 1.1" refused -tls1_1 -cipher DEFAULT@SECLEVEL=0
row "TLS 1.0" refused -tls1 -cipher DEFAULT@SECLEVEL=0
for group in X25519 P-256 P-384; do
    row "TLS 1.3, key share in $group" answered -tls1_3 -groups "$group"
done
row "TLS 1.3, first share in P-521, which is asked for again" answered -tls1_3 -groups P-521:P-256
row "TLS 1.3, P-521 alone" refused -tls1_3 -groups P-521
row "ALPN http/1.1" answered -alpn http/1.1
row "ALPN h2 and http/1.1" answered -alpn h2,http/1.1
row "ALPN h2 alone" refused -alpn h2
row "a server name the certificate does not have" answered -servername other.example

summary=$(client -tls1_2)
compression=$(printf '%s\n' "$summary" | sed -n 's/^Compression: //p')
[ "$compression" = NONE ] || failed=1
printf '\nCompression: %s. Secure renegotiation extension: %s.\n' "$compression" \
    "$(printf '%s\n' "$summary" | sed -n 's/^Secure Renegotiation IS \(.*\)/\1/p')"

cat <<'END'

## sslyze

```text
END
scan "$dir/sslyze" --sslv2 --sslv3 --tlsv1 --tlsv1_1 --tlsv1_2 --tlsv1_3 --compression --heartbleed \
    --openssl_ccs --reneg --fallback --robot --ems --early_data --elliptic_curves --resum
sed -n '/^ SCAN RESULTS/,$p' "$dir/sslyze" | sed "s/$port/PORT/g; s/ *\$//; /SCANS COMPLETED/d; /COMPLIANCE AGAINST/,\$d" |
    sed '$d' | cat -s
printf '```\n'
# sslyze says so in these words, and in no others, of what is not as it should be.
if grep -Eq 'VULNERABLE - |FAILED - |ERROR: ' "$dir/sslyze"; then failed=1; fi
# Of suites it has no opinion: they are held against what is to be offered.
printf '\nWhat it saw accepted, held against what is to be offered:\n\n'
accepts_modern ECDSA
for version in "SSL 2.0" "SSL 3.0" "TLS 1.0" "TLS 1.1"; do
    accepts "$version"
done

printf '\n## With an RSA key of 2,048 bits\n\n'
serve rsa
table
for algorithm in rsa_pss_rsae_sha256 rsa_pss_rsae_sha384 rsa_pss_rsae_sha512; do
    row "TLS 1.3, signed by $algorithm" answered -tls1_3 -sigalgs "$algorithm:ecdsa_secp256r1_sha256"
done
row "TLS 1.3, signed by nothing but ecdsa_secp256r1_sha256" refused -tls1_3 -sigalgs ecdsa_secp256r1_sha256
for suite in AES128-GCM-SHA256 AES256-GCM-SHA384 CHACHA20-POLY1305; do
    row "TLS 1.2, ECDHE-RSA-$suite" answered -tls1_2 -cipher "ECDHE-RSA-$suite"
done
for suite in AES128-GCM-SHA256 DHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-SHA \
    ECDHE-ECDSA-AES128-GCM-SHA256; do
    row "TLS 1.2, $suite" refused -tls1_2 -cipher "$suite:@SECLEVEL=0"
done
printf '\nBy sslyze:\n\n'
scan "$dir/sslyze-rsa" --tlsv1_2 --tlsv1_3
accepts_modern RSA

# shown NAME: the arguments with which a client shows that certificate.
shown() {
    printf -- '-cert %s/%s.crt -key %s/%s.key' "$dir" "$1" "$dir" "$1"
}
for who in required optional; do
    printf '\n## Where a certificate of the client is %s\n\n' "$who"
    serve tls RELAY_TLS_CLIENT_CA_PATH="$dir/authority.crt" RELAY_TLS_CLIENT_AUTH="$who"
    if [ "$who" = required ]; then without=refused; else without=answered; fi
    table
    for version in 1_3 1_2; do
        name="TLS $(printf '%s' "$version" | tr _ .)"
        row "$name, no certificate" "$without" "-tls$version"
        # shellcheck disable=SC2046 # Words, and no path here has a space.
        row "$name, one of the authority" answered "-tls$version" $(shown client)
        # shellcheck disable=SC2046
        row "$name, one that signed itself" refused "-tls$version" $(shown stranger)
    done
done
exit "$failed"
