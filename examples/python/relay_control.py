#!/usr/bin/env python3
"""Asks a relay, and tells it, over its control API.

A client of relay.control.v1 that needs nothing of the relay but its schema: what `protoc` makes of
that is made when this starts, in a directory that is gone afterwards.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python relay_control.py scopes
    venv/bin/python relay_control.py watch --messages 3
    venv/bin/python relay_control.py --address relay.corp:7790 --ca ca.pem --token-file token info
    venv/bin/python relay_control.py --address relay.corp:7790 --ca ca.pem --cert c.pem --key k info

Every answer is one line of JSON. Exits with 1 when the relay refuses, with the reason on stderr.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import grpc
from google.protobuf import json_format
from grpc_tools import protoc

SCHEMAS = pathlib.Path(__file__).resolve().parents[2] / "proto" / "grpc" / "proto"
SCHEMA = "relay/control/v1/control.proto"


def compile_schema(schemas):
    """Makes the messages and the client from the schema; returns both modules."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["protoc", f"-I{schemas}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
        if protoc.main(command + [SCHEMA]) != 0:
            sys.exit(f"{schemas / SCHEMA} cannot be compiled")
        sys.path.insert(0, folder)
        try:
            from relay.control.v1 import control_pb2, control_pb2_grpc
        finally:
            sys.path.remove(folder)
    return control_pb2, control_pb2_grpc


class Bearer(grpc.AuthMetadataPlugin):
    """Shows the token with every call. Over TLS alone: grpc refuses anything else."""

    def __init__(self, token):
        self.token = token

    def __call__(self, context, callback):
        callback((("authorization", f"Bearer {self.token}"),), None)


def connect(arguments):
    """A channel to unix:/path, to a port in the clear without a token, or to one over TLS."""
    if arguments.address.startswith("unix:") or arguments.ca is None:
        if any((arguments.token_file, arguments.cert, arguments.key)):
            sys.exit("a token or a certificate needs --ca: it must not travel in the clear")
        # At a path grpc would send that as the authority, escaped in a way that HTTP/2 forbids.
        authority = [("grpc.default_authority", "localhost")]
        return grpc.insecure_channel(arguments.address, options=authority)
    key, certificate = (
        None if path is None else path.read_bytes() for path in (arguments.key, arguments.cert)
    )
    credentials = grpc.ssl_channel_credentials(arguments.ca.read_bytes(), key, certificate)
    if arguments.token_file is not None:
        bearer = Bearer(arguments.token_file.read_text().strip())
        call = grpc.metadata_call_credentials(bearer)
        credentials = grpc.composite_channel_credentials(credentials, call)
    return grpc.secure_channel(arguments.address, credentials)


def show(message):
    """One line of JSON, every member by name."""
    shown = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    print(json.dumps(shown), flush=True)


def scopes(client, messages, arguments):
    """All scopes, page by page."""
    request = messages.ListScopesRequest(workspace_id=arguments.workspace, page_size=500)
    while True:
        page = client.ListScopes(request)
        for scope in page.scopes:
            show(scope)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def watch(client, messages, arguments):
    """What there is, then what changes: a map that is always true, told as lines."""
    request = messages.WatchStateRequest(workspace_id=arguments.workspace, interval_ms=100)
    known = {}
    for number, message in enumerate(client.WatchState(request), start=1):
        if message.HasField("snapshot"):
            if message.snapshot.is_first:
                known.clear()
            changed = message.snapshot.scopes
        else:
            changed = message.changes.scopes
        for scope in changed:
            key = (scope.workspace_id, scope.target_id)
            if scope.shard_ids:
                known[key] = scope
            else:
                known.pop(key, None)
        line = {
            "scopes": len(known),
            "daemons": sum(scope.daemons for scope in known.values()),
            "clients": sum(scope.clients for scope in known.values()),
        }
        print(json.dumps(line), flush=True)
        if number == arguments.messages:
            return


def meant(messages, arguments):
    """The filter that the arguments describe."""
    return messages.ConnectionFilter(
        workspace_id=arguments.workspace,
        target_id=arguments.target,
        client_id=arguments.client,
        token_id=arguments.token_id,
        key_id=arguments.key_id,
        address=arguments.ip,
    )


def connections(client, messages, arguments):
    """Connections that are meant, page by page."""
    request = messages.ListConnectionsRequest(filter=meant(messages, arguments), page_size=500)
    while True:
        page = client.ListConnections(request)
        for connection in page.connections:
            show(connection)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def close(client, messages, arguments):
    """Closes connections that are meant: at least one thing must be given."""
    request = messages.CloseConnectionsRequest(
        filter=meant(messages, arguments), dry_run=arguments.dry_run
    )
    show(client.CloseConnections(request))


def info(client, messages, _arguments):
    show(client.GetInfo(messages.GetInfoRequest()))


def state(client, messages, _arguments):
    show(client.GetState(messages.GetStateRequest()))


def drain(client, messages, arguments):
    request = messages.DrainRequest(window_ms=arguments.window_ms, redirect_url=arguments.redirect)
    show(client.Drain(request))


def resume(client, messages, _arguments):
    show(client.Resume(messages.ResumeRequest()))


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", default="unix:/run/relay/control.sock")
    parser.add_argument("--ca", type=pathlib.Path, help="PEM file of who vouches for the relay")
    parser.add_argument("--cert", type=pathlib.Path, help="PEM file of the certificate to show")
    parser.add_argument("--key", type=pathlib.Path, help="PEM file of its private key")
    parser.add_argument("--token-file", type=pathlib.Path)
    parser.add_argument("--schemas", type=pathlib.Path, default=SCHEMAS)
    calls = parser.add_subparsers(required=True)
    for call in (info, state, resume):
        calls.add_parser(call.__name__).set_defaults(call=call)
    for call in (scopes, watch):
        command = calls.add_parser(call.__name__, help=call.__doc__)
        command.add_argument("--workspace", default="")
        command.set_defaults(call=call)
        if call is watch:
            command.add_argument("--messages", type=int, help="so many, then end")
    for call in (connections, close):
        command = calls.add_parser(call.__name__, help=call.__doc__)
        for name in ("workspace", "target", "client", "token-id", "key-id", "ip"):
            command.add_argument(f"--{name}", default="")
        command.set_defaults(call=call)
        if call is close:
            command.add_argument("--dry-run", action="store_true")
    command = calls.add_parser("drain")
    command.add_argument("--window-ms", type=int, default=0)
    command.add_argument("--redirect", default="")
    command.set_defaults(call=drain)
    return parser.parse_args()


def main():
    arguments = parse()
    messages, services = compile_schema(arguments.schemas)
    with connect(arguments) as channel:
        try:
            arguments.call(services.ControlStub(channel), messages, arguments)
        except grpc.RpcError as error:
            sys.exit(f"the relay refuses: {error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()
