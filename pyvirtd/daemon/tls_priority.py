"""GnuTLS priority strings (tls_priority) as settings of OpenSSL's: those that mean the same in both.

https://gnutls.org/manual/html_node/Priority-Strings.html. A word without a counterpart is refused by name: somebody
wrote it to allow or to forbid something.
"""

import ssl

from pyvirtd.errors import ConfigUnsupported

# What a string starts from: OpenSSL's ciphers for TLS 1.2.
STRONG = "HIGH:!aNULL:!MD5:!3DES"
LEVELS = {
    "NORMAL": "DEFAULT",
    "PERFORMANCE": "DEFAULT",
    "@SYSTEM": "DEFAULT",
    "PFS": "DEFAULT:!kRSA",
    "SECURE128": STRONG,
    "SECURE192": f"{STRONG}:!AES128",
    "SECURE256": f"{STRONG}:!AES128",
}
VERSIONS = {
    "VERS-TLS1.0": ssl.TLSVersion.TLSv1,
    "VERS-TLS1.1": ssl.TLSVersion.TLSv1_1,
    "VERS-TLS1.2": ssl.TLSVersion.TLSv1_2,
    "VERS-TLS1.3": ssl.TLSVersion.TLSv1_3,
}
ALL_VERSIONS = ("VERS-TLS-ALL", "VERS-ALL")
USUAL_VERSIONS = frozenset({ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3})
# Algorithms that may be taken away, by the names of their ciphers in TLS 1.2.
ALGORITHMS = {
    "RSA": "kRSA",
    "DHE-RSA": "kDHE",
    "ECDHE-RSA": "kECDHE+aRSA",
    "ECDHE-ECDSA": "kECDHE+aECDSA",
    "3DES-CBC": "3DES",
    "CAMELLIA-128-CBC": "CAMELLIA128",
    "CAMELLIA-256-CBC": "CAMELLIA256",
    "SHA1": "SHA1",
}
# These are in TLS 1.3, too, where the ssl module cannot choose among ciphers.
SHARED_ALGORITHMS = {
    "AES-128-GCM": "AES128+AESGCM",
    "AES-256-GCM": "AES256+AESGCM",
    "CHACHA20-POLY1305": "CHACHA20",
    "SHA384": "SHA384",
    "SHA256": "SHA256",
}
SHARED_LEVELS = ("SECURE192", "SECURE256")
# What our contexts do anyway.
HELD = ("%SERVER_PRECEDENCE", "%SAFE_RENEGOTIATION", "%NO_TICKETS")


def apply_priority(context: ssl.SSLContext, priority: str) -> None:
    """Make a context follow a priority string. Raises ConfigUnsupported with the word that cannot be followed."""
    first, *changes = priority.split(":")
    if first not in LEVELS:
        raise _cannot(priority, first)
    removable = ALGORITHMS | SHARED_ALGORITHMS
    versions = set(USUAL_VERSIONS)
    without: list[str] = []
    shared = [first] if first in SHARED_LEVELS else []
    for word in changes:
        sign, name = word[:1], word[1:]
        if sign in ("+", "-", "!") and (name in VERSIONS or name in ALL_VERSIONS):
            named = set(VERSIONS.values()) if name in ALL_VERSIONS else {VERSIONS[name]}
            versions = versions | named if sign == "+" else versions - named
        elif sign in ("-", "!") and name in removable:
            without.append(removable[name])
            if name in SHARED_ALGORITHMS:
                shared.append(word)
        elif word not in HELD:
            raise _cannot(priority, word)
    if shared and ssl.TLSVersion.TLSv1_3 in versions:
        raise _cannot(priority, shared[0], " as long as TLS 1.3 is allowed")
    _allow_versions(context, priority, versions)
    try:
        context.set_ciphers(":".join([LEVELS[first], *(f"!{cipher}" for cipher in without)]))
    except ssl.SSLError:
        raise ConfigUnsupported(f"tls_priority '{priority}' leaves no cipher") from None


def _allow_versions(context: ssl.SSLContext, priority: str, versions: set[ssl.TLSVersion]) -> None:
    """OpenSSL knows a range; a hole in it is refused."""
    known = sorted(VERSIONS.values())
    if not versions:
        raise ConfigUnsupported(f"tls_priority '{priority}' leaves no version of TLS")
    low, high = min(versions), max(versions)
    if {version for version in known if low <= version <= high} != versions:
        raise ConfigUnsupported(f"tls_priority '{priority}' leaves out a version of TLS between two others")
    if low < ssl.TLSVersion.TLSv1_2:
        raise ConfigUnsupported(f"tls_priority '{priority}' asks for a version of TLS that is no longer safe")
    context.minimum_version, context.maximum_version = low, high


def _cannot(priority: str, word: str, when: str = "") -> ConfigUnsupported:
    return ConfigUnsupported(f"tls_priority '{priority}': '{word}' cannot be followed{when}")
