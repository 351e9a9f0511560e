# Supervises one throw-away server: starts and stops it by commands on stdin. When stdin ends, because the parent
# process has ended in any way, this stops the server and removes its folder.
#
#   $1  folder, which this may use and remove
#   $2  folder of the server's programs
#   $3  data directory of a server to copy; empty: make a fresh database
#   rest: arguments of the server
#
# Ignores PIPE, which writing to an ended parent raises, and HUP, which the group of a frozen server gets together with
# CONT when the parent ends: either would leave the server behind.
trap '' PIPE HUP
folder=$1
bin=$2
source=$3
shift 3
umask 077
cd "$folder" || exit 1

make() {
    if [ -z "$source" ]; then
        # The user is not named as the schema of Reveille's tables: with the usual search path, which begins with the
        # schema of the user's name, an unqualified table of this user would land there.
        "$bin/initdb" -D data -U postgres -A scram-sha-256 --pwfile=password --no-sync -E UTF8 --locale=C
        return
    fi
    # Files of the running server come and go during the copy. Its log replaces what the copy misses.
    cp -R "$source" data
    rm -rf data/postmaster.* data/pg_wal/* data/pg_replslot/*
    mkdir -p data/pg_wal/archive_status
    [ -f data/global/pg_control ]
}

stop() {
    [ -f pid ] || return 0
    kill -s "$1" "$(cat pid)" 2>/dev/null
    kill -s CONT "$(cat pid)" 2>/dev/null # A frozen server would not handle the signal.
    wait
    rm -f pid
}

if make >log 2>&1 </dev/null; then
    rm -f password
    echo initialised
else
    echo failed
fi

while read -r command argument; do
    case $command in
    start)
        rm -f exited
        (
            "$bin/postgres" -D data -p "$argument" "$@" &
            echo $! >pid
            wait $!
            echo $? >exited
        ) >>log 2>&1 </dev/null &
        echo started
        ;;
    stop)
        stop "$argument"
        echo stopped
        ;;
    append)
        # The argument is a file and the number of lines that follow. The server's user writes them, not root: the
        # folder may have links in it that lead elsewhere.
        file=${argument%% *}
        lines=${argument#* }
        text=
        while [ "$lines" -gt 0 ] && IFS= read -r line; do
            text="$text$line
"
            lines=$((lines - 1))
        done
        if printf '%s' "$text" >>"$file"; then echo appended; else echo failed; fi
        ;;
    keep)
        echo kept
        exit 0
        ;;
    esac
done

# QUIT: the data is thrown away, so it need not be written out first.
stop QUIT
cd / && rm -rf "$folder"
