#!/bin/sh
# Starts a Slurm of this machine alone: munged, slurmctld and slurmd. As root, with Debian's slurm-wlm installed:
#     apt-get install slurm-wlm && eval "$(tests/slurm/start.sh)" && make test ARGS=tests/slurm
# It changes no file in /etc but munge's key, if there is none. `tests/slurm/start.sh stop` ends it.
set -eu
folder=/var/tmp/boltzbench-slurm
if [ "${1:-}" = stop ]; then
    for name in slurmd slurmctld munged; do
        [ ! -f "$folder/$name.pid" ] || kill "$(cat "$folder/$name.pid")" || true
    done
    exit
fi
host=$(hostname -s)
mkdir -p "$folder/state" "$folder/spool" /run/munge
chmod 755 "$folder"
cat > "$folder/slurm.conf" <<EOF
ClusterName=boltzbench
SlurmctldHost=$host
SlurmUser=root
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=10
NodeName=$host CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF
case $(slurmd -V) in
    *\ 2[0-2].*) printf 'IgnoreSystemd=yes\n' ;;
    *) printf 'CgroupPlugin=disabled\n' ;;
esac > "$folder/cgroup.conf"
export SLURM_CONF="$folder/slurm.conf"
if ! munge -n > /dev/null 2>&1; then
    [ -f /etc/munge/munge.key ] || mungekey --create
    chown munge: /run/munge /etc/munge/munge.key
    install -d -o munge "$folder/munge"
    runuser -u munge -- munged --pid-file="$folder/munge/munged.pid" --log-file="$folder/munge/munged.log" \
        --seed-file="$folder/munge/seed"
    ln -sf "$folder/munge/munged.pid" "$folder/munged.pid"
fi
slurmctld
slurmd
for _ in $(seq 60); do
    [ "$(sinfo --noheader --format=%t 2> /dev/null)" != idle ] || break
    sleep 0.5
done
[ "$(sinfo --noheader --format=%t)" = idle ] || { tail -20 "$folder"/slurm*.log >&2; exit 1; }
echo "export SLURM_CONF=$SLURM_CONF"
