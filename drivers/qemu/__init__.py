"""The QEMU driver: qemu:///system and qemu:///session.

`driver` holds it together; `lifecycle`, `stats`, `consoles`, `guest_agent`, … are its parts, listed in `parts`;
`process` starts and ends a guest, `pause` stops it and lets it run, `saving` puts it into a file and takes it from
there, `adopt` finds one again, `monitor` and `events` speak with it; `postparse`, `validate` and `command` are pure: a
definition, QEMU's capabilities and the facts of the host in, a complete definition and argv out.
"""
