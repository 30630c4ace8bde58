#!/bin/sh
# A SLURM cluster of one node for tests, on a Debian machine and as root:
#
#     sh tests/slurm/setup.sh && python -m pytest -m slurm tests/runs/test_cluster.py
#
# It installs munge and slurm-wlm where they are absent, writes slurm.conf and starts the three
# daemons. Repeating it restarts them and cancels what was queued. A job that is queued again waits
# as long as a credential lives: 15 s here, 2 minutes where nothing is said. There is no accounting, so submitit warns about sacct.
set -eu

if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
    apt-get update -q
    apt-get install -y -q --no-install-recommends munge slurm-wlm
fi

host=$(hostname -s)
memory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
state=/var/spool/slurm-test
mkdir -p /etc/slurm "$state/ctld" "$state/d" /run/munge /var/log/slurm
if [ ! -s /etc/munge/munge.key ]; then
    dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 2>/dev/null
fi
chown -R munge: /etc/munge /run/munge
chmod 400 /etc/munge/munge.key

cat >/etc/slurm/slurm.conf <<EOF
ClusterName=test
SlurmctldHost=$host
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=15
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
KillWait=10
MinJobAge=60
NodeName=$host CPUs=2 RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF

for pid_file in /run/slurmd.pid /run/slurmctld.pid; do
    if [ -s "$pid_file" ] && kill "$(cat "$pid_file")" 2>/dev/null; then
        while kill -0 "$(cat "$pid_file")" 2>/dev/null; do sleep 0.2; done
    fi
done
munge --no-input >/dev/null 2>&1 || runuser -u munge -- munged
slurmctld
slurmd

for _ in $(seq 60); do
    if sinfo --noheader --format=%t 2>/dev/null | grep -qE 'idle|mix|alloc'; then
        scancel --user=root
        sinfo
        exit 0
    fi
    sleep 1
done
echo "the node did not come up; see /var/log/slurm" >&2
exit 1
