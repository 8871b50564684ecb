"""The SMTP server of the tests: aiosmtpd, spoken to by JSON lines.

Arguments: one JSON object {"user", "password", "tls": null|"starttls"|"implicit", "cert", "key", "thinks_ms"}.
Standard input: {"refuse": null | {"at": "mail"|"rcpt"|"data", "reply": "451 ...", "to": null | "address"}, "hang_up": bool,
"hang": bool} sets how it answers from now on.
Standard output: {"event": "ready", "port"}, {"event": "set"} for each line of input, {"event": "auth"} for each AUTH command,
{"event": "mail", ...} for each mail it took.
"""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


def say(**event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def body(message, kind):
    part = message.get_body(preferencelist=(kind,))
    return part.get_content() if part is not None else None


class Handler:
    thinks_ms = 0
    refuse = None
    hang_up = False
    hang = False

    def refusal(self, at):
        return self.refuse["reply"] if self.refuse and self.refuse["at"] == at else None

    async def handle_MAIL(self, server, session, envelope, address, options):
        refusal = self.refusal("mail")
        if refusal:
            return refusal
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        refusal = self.refusal("rcpt")
        if refusal and self.refuse.get("to") in (None, address):
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        refusal = self.refusal("data")
        if refusal:
            return refusal
        if self.hang:
            await asyncio.Event().wait()
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        say(
            event="mail",
            envelope_from=envelope.mail_from,
            recipients=envelope.rcpt_tos,
            headers=[(name, str(value)) for name, value in message.items()],
            text=body(message, "plain"),
            html=body(message, "html"),
            raw=envelope.content.decode("utf-8", "replace"),
            authenticated=bool(session.authenticated),
            encrypted=session.ssl is not None or server.transport.get_extra_info("ssl_object") is not None,
        )
        if self.hang_up:
            server.transport.abort()
        await asyncio.sleep(self.thinks_ms / 1000)
        return "250 OK"


class Server(SMTP):
    async def smtp_AUTH(self, arg):
        say(event="auth")
        await super().smtp_AUTH(arg)


async def main():
    options = json.loads(sys.argv[1])
    handler = Handler()
    handler.thinks_ms = options["thinks_ms"]
    tls = None
    if options["tls"]:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options["cert"], options["key"])

    def authenticate(server, session, envelope, mechanism, data):
        right = LoginPassword(options["user"].encode(), options["password"].encode()) if options["user"] else None
        return AuthResult(success=isinstance(data, LoginPassword) and data == right, handled=False)

    def session():
        return Server(
            handler,
            hostname="localhost",
            enable_SMTPUTF8=True,
            authenticator=authenticate if options["user"] else None,
            auth_required=bool(options["user"]),
            auth_require_tls=options["tls"] == "starttls",
            tls_context=tls if options["tls"] == "starttls" else None,
            require_starttls=options["tls"] == "starttls",
            timeout=60,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(session, "127.0.0.1", 0, ssl=tls if options["tls"] == "implicit" else None)
    say(event="ready", port=server.sockets[0].getsockname()[1])

    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        handler.refuse, handler.hang_up, handler.hang = order["refuse"], order["hang_up"], order["hang"]
        say(event="set")


asyncio.run(main())
