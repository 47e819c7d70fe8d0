#!/bin/sh
# Installs the Debian packages of the commands that are missing; without root or apt it names them and goes on.
#
#   tools/system-packages.sh                what the test suite uses
#   tools/system-packages.sh make ...       only these of the list below
set -eu

# command        Debian package
list='
chromium         chromium
fish             fish
g++              g++
git              git
ip               iproute2
make             make
mariadbd         mariadb-server
munged           munge
pdflatex         texlive-latex-recommended
python3          python3
rsync            rsync
sbatch           slurm-client
shellcheck       shellcheck
slurmctld        slurmctld
slurmd           slurmd
slurmdbd         slurmdbd
ssh              openssh-client
sshd             openssh-server
tcsh             tcsh
zsh              zsh
'

PATH=$PATH:/usr/sbin:/sbin # where Debian keeps sshd, also for users
missing=
while read -r command package; do
    [ -n "$command" ] || continue
    [ $# -eq 0 ] || case " $* " in *" $command "*) ;; *) continue ;; esac
    command -v "$command" >/dev/null || missing="$missing $package"
done <<END
$list
END
# Debian's own python3 comes without ensurepip; another interpreter may be what is used.
if [ $# -eq 0 ] && ! python3 -c 'import ensurepip' 2>/dev/null; then
    missing="$missing python3-venv"
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing Debian packages:$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # What dpkg has to say matters when it fails.
    # shellcheck disable=SC2086  # a list of words
    said=$({ apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } 2>&1) || {
        printf '%s\n' "$said" >&2
        exit 1
    }
else
    echo "not installed (tests that need them will say so):$missing" >&2
fi
