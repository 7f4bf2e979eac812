#!/bin/sh
# First process of the tiny guest: load what its devices need, get an address, then a shell on the console for ever.
export PATH=/bin HOME=/ TERM=linux PS1='tiny# '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/virtio-ports
mount -t devpts devpts /dev/pts
while read -r module; do insmod "/modules/$module"; done </modules/order 2>/dev/null
hostname tiny
ip link set lo up
# The button driver reports a power request as a key on an input device; acpid runs /etc/acpi/PWRF/00000080 for it.
acpid -c /etc/acpi -l /tmp/acpid.log 2>/dev/null
for port in /sys/class/virtio-ports/*; do
    [ -s "$port/name" ] && ln -s "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
done
for nic in /sys/class/net/e*; do
    [ -e "$nic" ] && ip link set "${nic##*/}" up && udhcpc -b -q -s /etc/udhcpc.sh -i "${nic##*/}" >/dev/null 2>&1 &
done
if [ -x /bin/qemu-ga ] && [ -e /dev/virtio-ports/org.qemu.guest_agent.0 ]; then
    qemu-ga -d -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0 -t /run -f /run/qemu-ga.pid
fi
# The shell wraps what is typed at the terminal's width; whoever reads this console by program wants whole lines.
stty cols 1000 rows 24 </dev/console
echo "tiny guest ready"
while :; do setsid cttyhack sh; done
