#!/usr/bin/env python3
"""Makes noise.json: one Noise_IK_25519_ChaChaPoly_SHA512 handshake by another implementation.

    pip install noiseprotocol==0.3.1
    python3 make_noise.py >noise.json

Static and ephemeral secrets are fixed. Holds both handshake messages, then one transport message
each way, and one after a rekey of the initiator's sending key.
"""
import json

from noise.connection import Keypair, NoiseConnection

PROLOGUE = b"FedCoT golden prologue"
SECRETS = {
    "initiator_static": bytes(range(1, 33)),
    "responder_static": bytes(range(65, 97)),
    "initiator_ephemeral": bytes(range(129, 161)),
    "responder_ephemeral": bytes(range(193, 225)),
}


def main() -> None:
    ends = {}
    for end in ("initiator", "responder"):
        c = NoiseConnection.from_name(b"Noise_IK_25519_ChaChaPoly_SHA512")
        c.set_as_initiator() if end == "initiator" else c.set_as_responder()
        c.set_prologue(PROLOGUE)
        c.set_keypair_from_private_bytes(Keypair.STATIC, SECRETS[end + "_static"])
        c.set_keypair_from_private_bytes(Keypair.EPHEMERAL, SECRETS[end + "_ephemeral"])
        ends[end] = c
    initiator, responder = ends["initiator"], ends["responder"]
    public = responder.noise_protocol.keypairs["s"].public_bytes
    initiator.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, public)
    initiator.start_handshake()
    responder.start_handshake()
    first = initiator.write_message(b"first payload")
    assert responder.read_message(first) == b"first payload"
    second = responder.write_message(b"second payload")
    assert initiator.read_message(second) == b"second payload"
    there, back = initiator.encrypt(b"there"), responder.encrypt(b"and back")
    assert responder.decrypt(there) == b"there" and initiator.decrypt(back) == b"and back"
    initiator.rekey_outbound_cipher()
    responder.rekey_inbound_cipher()
    rekeyed = initiator.encrypt(b"under another key")
    assert responder.decrypt(rekeyed) == b"under another key"
    print(json.dumps({
        "prologue": PROLOGUE.hex(), **{k: v.hex() for k, v in SECRETS.items()},
        "responder_public": bytes(public).hex(), "first": bytes(first).hex(),
        "second": bytes(second).hex(), "hash": initiator.get_handshake_hash().hex(),
        "there": there.hex(), "back": back.hex(), "rekeyed": rekeyed.hex(),
    }, indent=1))


if __name__ == "__main__":
    main()
