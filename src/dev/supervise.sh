# Looks after one throw-away server: starts and stops it as told on stdin, and when stdin ends, because its parent has
# ended in whatever way, stops it and removes its folder.
#
#   $1  folder, which this may use and remove    $2  folder of the server's programs
#   $3  data of a server to copy; empty: make a fresh database                          rest: arguments of the server
# Neither to speak to a parent that has ended, nor to be hung up on with it, is a reason to leave its server behind: where
# the server is frozen, its group is sent both signals, HUP and CONT, when the parent ends.
trap '' PIPE HUP
folder=$1
bin=$2
source=$3
shift 3
umask 077
cd "$folder" || exit 1

make() {
    if [ -z "$source" ]; then
        "$bin/initdb" -D data -U reveille -A scram-sha-256 --pwfile=password --no-sync -E UTF8 --locale=C
        return
    fi
    # Files of a running server come and go meanwhile; what is missing is made good from its log.
    cp -R "$source" data
    rm -rf data/postmaster.* data/pg_wal/* data/pg_replslot/*
    mkdir -p data/pg_wal/archive_status
    [ -f data/global/pg_control ]
}

stop() {
    [ -f pid ] || return 0
    kill -s "$1" "$(cat pid)" 2>/dev/null
    kill -s CONT "$(cat pid)" 2>/dev/null # A frozen one hears nothing.
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
        # The file, and how many lines follow that go into it. By this user, whose folder may have links in it that lead elsewhere.
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

# The data is thrown away: no need to write it out first.
stop QUIT
cd / && rm -rf "$folder"
