"""Doctor's look at MongoDB: whether it answers, who may enter, and from where it can be reached."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hullworks.database import client_options, database_uri
from hullworks.errors import HullWorksError, MissingPartError, ServiceError
from hullworks.launchers.services import mongod
from hullworks.launchers.services.findings import Part, PartState
from hullworks.launchers.services.mongod import ServerState
from hullworks.launchers.services.parts import find_mongod
from hullworks.launchers.services.processes import PROC

if TYPE_CHECKING:
    from pymongo import MongoClient

    from hullworks.settings import Settings

NAME = "MongoDB"
WAIT_S = 5.0
_LISTENS = "0A"
"""State of a listening socket in the kernel's table."""


def check_mongodb(settings: Settings) -> list[Part]:
    """Look at the project's database, private or elsewhere."""
    return [_private(settings) if settings.embedded_database else _elsewhere(settings)]


def listening_addresses(port: int) -> set[str]:
    """Return the addresses of this machine at which anybody listens at a port, as the kernel tells."""
    found = set()
    for table in ("net/tcp", "net/tcp6"):
        path = PROC / table
        for line in path.read_text(encoding="ascii").splitlines()[1:] if path.is_file() else []:
            fields = line.split()
            address, _, hexadecimal = fields[1].rpartition(":")
            if fields[3] == _LISTENS and int(hexadecimal, 16) == port:
                found.add(str(_address(address)))
    return found


def _address(hexadecimal: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    # The kernel prints each group of four bytes as a little-endian number.
    raw = bytes.fromhex(hexadecimal)
    address = ipaddress.ip_address(b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4)))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _private(settings: Settings) -> Part:
    try:
        program = find_mongod(settings)
    except MissingPartError as error:
        return Part(
            name=NAME, state=PartState.MISSING, where=error.where, detail=error.what, how_to_get=error.next_step
        )
    found = Part(name=NAME, state=PartState.WORKS, version=program.version, where=str(program.path))
    try:
        status = mongod.status(settings)
        if status.state is ServerState.RUNNING:
            return _judged(found, f"{status.host}:{status.port}", database_uri(settings))
    except HullWorksError as error:
        return replace(found, state=PartState.BROKEN, where=error.where, detail=error.what, how_to_get=error.next_step)
    state = PartState.WORKS if status.state is ServerState.STOPPED else PartState.BROKEN
    return replace(found, state=state, detail=f"This project's server is {status.state}.", how_to_get="hullworks up")


def _elsewhere(settings: Settings) -> Part:
    found = Part(name=NAME, state=PartState.BROKEN, where="[database] uri")
    try:
        return _judged(found, "", database_uri(settings))
    except HullWorksError as error:
        return replace(found, where=error.where or found.where, detail=error.what, how_to_get=error.next_step)


def _judged(found: Part, where: str, uri: str) -> Part:
    """Complete a part by what the server at ``uri`` says and lets strangers do."""
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError
    from pymongo.uri_parser import parse_uri

    try:
        parsed = parse_uri(uri)
        with MongoClient[dict[str, Any]](uri, **client_options(WAIT_S)) as client:
            client.admin.command("listDatabases", nameOnly=True, authorizedDatabases=True)
            version = str(client.server_info()["version"])
        open_to_all = _lets_strangers_in(parsed)
    except (PyMongoError, ValueError) as error:
        # Not the driver's text: it may quote the address, and with it the password.
        raise ServiceError(f"it does not let us in ({type(error).__name__})", where, "Check [database] uri.") from None
    hosts = [(str(host), int(port or 0)) for host, port in parsed["nodelist"]]
    reachable = sorted(_reachable_at(hosts))
    where = where or ", ".join(f"{host}:{port}" for host, port in hosts)
    detail, cure = _access(open_to_all=open_to_all, reachable=reachable)
    state = PartState.BROKEN if open_to_all and reachable else PartState.WORKS
    return replace(found, state=state, version=version, where=where, detail=detail, how_to_get=cure)


def _access(*, open_to_all: bool, reachable: list[str]) -> tuple[str, str]:
    """Return a sentence on who can enter, and what should be done about it."""
    place = f"It can be reached at {', '.join(reachable)}" if reachable else "It listens at this machine alone"
    if not open_to_all:
        return f"{place}, with a password.", ""
    who = "anybody on the network" if reachable else "every user of this machine"
    return f"{place}, and {who} can read and change it without a password.", "Turn on its authentication."


def _lets_strangers_in(parsed: dict[str, Any]) -> bool:
    from pymongo import MongoClient
    from pymongo.errors import OperationFailure

    options = {name: value for name, value in parsed["options"].items() if not name.lower().startswith("auth")}
    hosts = [f"{host}:{port}" for host, port in parsed["nodelist"]]
    client: MongoClient[dict[str, Any]]
    with MongoClient(hosts, **{**options, **client_options(WAIT_S)}) as client:
        try:
            client.admin.command("listDatabases", nameOnly=True, authorizedDatabases=False)
        except OperationFailure:
            return False
    return True


def _reachable_at(hosts: list[tuple[str, int]]) -> set[str]:
    """Return the addresses of the server that are not of this machine alone."""
    found = set()
    for host, port in hosts:
        home = host == "localhost" or host.endswith(".sock") or _is_loopback(host)
        addresses = listening_addresses(port) if home else {host}
        found |= {address for address in addresses if not _is_loopback(address)}
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
