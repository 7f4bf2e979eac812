"""libvirt's documents as typed objects, named after the words of the format.

`domain` is the <domain> document, put together from `os`, `cpu`, `features`, `devices` and the modules of single device
kinds; `status` is the state file of a running guest. Reading settles what libvirt's own reader settles whatever the
hypervisor; defaults, addresses and rules of a hypervisor are its driver's.
"""
