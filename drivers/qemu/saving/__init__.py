"""Saved guests: a paused guest's state in a file, and back.

`transfer` moves the state between QEMU and a descriptor, `pipeline` stands between that and a file, `image` is the
file's layout and `document` the definition in it; `save`, `restore` and `managed` put them together, `edit` changes the
document of an image in place, `recover` tidies up after a daemon that died; `part` and `jobs` are the procedures.
"""
