"""A peer that authenticates by DIGEST-MD5 (RFC 2831) over TCP and then does what no client does; prints what comes.

Usage: python -m tests.daemon.digest_peer HOW, where HOW is `call` or `part` (sent along with the last step, in the
clear), `clear` (sent after it), `hang up` (instead of the last step) or `again` (three times with a wrong password).
`external FOLDER` shows the certificate in the folder over TLS and asks for no password.
"""

import hashlib
import re
import secrets
import socket
import ssl
import sys

from pyvirtd.api.rpc import REMOTE, VERSION
from pyvirtd.api.session import AuthSASLStartReply
from pyvirtd.wire.packet import Framer, Packet, PacketType, frame
from tests.daemon.harness import Answered, procedure

USER, SERVICE = "fred", "libvirt/localhost"


class Peer:
    def __init__(self, folder: str = "") -> None:
        self.sock = socket.create_connection(("localhost", 16514 if folder else 16509), timeout=10)
        if folder:
            context = ssl.create_default_context(cafile=f"{folder}/cacert.pem")
            context.load_cert_chain(f"{folder}/clientcert.pem", f"{folder}/clientkey.pem")
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
            assert self.sock.recv(1) == b"\1"
        self.framer = Framer()
        self.packets: list[Packet] = []
        self.serial = 0

    def packed(self, name: str, *values: object) -> bytes:
        self.serial += 1
        declared = procedure(name)
        payload = declared.args.encode(*values)
        return frame(REMOTE.number, VERSION, declared.number, PacketType.CALL, self.serial, 0, payload)

    def reply(self) -> Packet | None:
        """The next packet; None when the server closed the connection."""
        while not self.packets:
            try:
                data = self.sock.recv(65536)
            except ConnectionError:
                return None
            if not data:
                return None
            self.packets += self.framer.feed(data)
        return self.packets.pop(0)

    def call(self, name: str, *values: object) -> list[object]:
        self.sock.sendall(self.packed(name, *values))
        packet = self.reply()
        assert packet is not None
        if packet.status:
            raise Answered(packet)
        return list(procedure(name).reply.decode(packet.payload))

    def last_step(self, password: str = "secret") -> bytes:
        """The call that completes the exchange."""
        assert "DIGEST-MD5" in str(self.call("auth_sasl_init")[0])
        started = self.call("auth_sasl_start", "DIGEST-MD5", 1, b"")[0]
        assert isinstance(started, AuthSASLStartReply)
        challenge = started.data
        return self.packed("auth_sasl_step", 0, answer(challenge.decode(), password).encode())


def answer(challenge: str, password: str) -> str:
    """RFC 2831 2.1.2, with a security layer."""
    realm = re.findall(r'realm="([^"]*)"', challenge)[0]
    nonce, cnonce = re.findall(r'nonce="([^"]*)"', challenge)[0], secrets.token_hex(16)
    secret = hashlib.md5(f"{USER}:{realm}:{password}".encode()).digest()
    a1 = hashlib.md5(secret + f":{nonce}:{cnonce}".encode()).hexdigest()
    a2 = hashlib.md5(f"AUTHENTICATE:{SERVICE}:{'0' * 32}".encode()).hexdigest()
    response = hashlib.md5(f"{a1}:{nonce}:00000001:{cnonce}:auth-conf:{a2}".encode()).hexdigest()
    return (
        f'username="{USER}",realm="{realm}",nonce="{nonce}",cnonce="{cnonce}",nc=00000001,qop=auth-conf,cipher="rc4",'
        f'digest-uri="{SERVICE}",response={response},charset=utf-8'
    )


def main(how: str, folder: str = "") -> None:
    peer = Peer(folder)
    if how == "external":
        print(peer.call("auth_sasl_init")[0])
        try:
            print(peer.call("auth_sasl_start", "EXTERNAL", 0, b"")[0])
            peer.call("connect_open", "qemu:///system", 0)
        except Answered as exc:
            print(exc)
        return
    if how == "again":
        for _ in range(3):
            try:
                peer.call("auth_sasl_step", 0, b"")
            except Answered as exc:
                print(exc)
            peer.sock.sendall(peer.last_step("wrong"))
            packet = peer.reply()
            print(Answered(packet) if packet else "closed")
        print("closed" if peer.reply() is None else "open")
        return
    step = peer.last_step()
    if how == "hang up":
        return
    more = {"call": peer.packed("connect_open", "qemu:///system", 0), "part": b"\0\0\1"}.get(how, b"")
    peer.sock.sendall(step + more)
    while (packet := peer.reply()) is not None:
        print("error" if packet.status else "reply", packet.procedure)
        if how == "call" and packet.procedure == procedure("auth_sasl_step").number:
            return
        if how == "clear":
            how = ""
            peer.sock.sendall(peer.packed("connect_open", "qemu:///system", 0) * 2)
    print("closed")


if __name__ == "__main__":
    main(*sys.argv[1:])
