"""Distinguished names as GnuTLS writes them, which is how tls_allowed_dn_list and access rules spell them.

RFC 4514 2.4 and 2.3, but in the order of the certificate: `C=GB,O=Example,CN=client`.
"""

from cryptography import x509
from cryptography.x509.oid import NameOID

SHORT_NAMES = {
    NameOID.COMMON_NAME: "CN",
    NameOID.COUNTRY_NAME: "C",
    NameOID.LOCALITY_NAME: "L",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.STREET_ADDRESS: "street",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.USER_ID: "UID",
    NameOID.EMAIL_ADDRESS: "EMAIL",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.SURNAME: "surName",
    NameOID.GIVEN_NAME: "givenName",
    NameOID.TITLE: "title",
    NameOID.GENERATION_QUALIFIER: "generationQualifier",
    NameOID.DN_QUALIFIER: "dnQualifier",
    NameOID.PSEUDONYM: "pseudonym",
    NameOID.POSTAL_CODE: "postalCode",
}


def distinguished_name(subject: x509.Name) -> str:
    """The name in one line."""
    return ",".join("+".join(_attribute(one) for one in rdn) for rdn in subject.rdns)


def _attribute(attribute: x509.NameAttribute) -> str:
    value = attribute.value
    text = value if isinstance(value, str) else value.decode("latin-1")
    return f"{SHORT_NAMES.get(attribute.oid, attribute.oid.dotted_string)}={_escaped(text)}"


def _escaped(text: str) -> str:
    """RFC 4514 2.4."""
    escaped = "".join(f"\\{char}" if char in ',+"\\<>;' else char for char in text).replace("\0", "\\00")
    if escaped.startswith((" ", "#")):
        escaped = "\\" + escaped
    if escaped.endswith(" ") and len(escaped) > 1:
        escaped = escaped[:-1] + "\\ "
    return escaped
