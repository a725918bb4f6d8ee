"""Leaves traces, waits until the other user's program has done so too, then looks for the other's from inside."""
import glob, http.client, json, os, signal, socket, sys, threading, time

me = os.environ["PROMPT"]
mark = "trace-of-" + me
for path in ("mark", os.path.expanduser("~/mark"), "/tmp/mark", "/dev/shm/mark"):
    try:
        open(f"{path}-{mark}", "w").write(mark)
    except OSError:
        pass
tcp = socket.create_server(("127.0.0.1", 4711))
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\0" + "door-of-" + me)
abstract.listen()
for listener in (tcp, abstract):
    threading.Thread(target=lambda listener=listener: [listener.accept() for _ in iter(int, 1)], daemon=True).start()
print("ready", flush=True)
while not os.path.exists("go.json"):
    time.sleep(0.01)
other = json.load(open("go.json"))
seen, errors = set(), {}


def note(what, act):
    try:
        errors[what] = repr(act())
    except Exception as error:
        errors[what] = type(error).__name__


def read(path):
    try:
        with open(path, "rb") as file:
            seen.add(f"{path}: " + file.read(1 << 16).decode(errors="replace"))
    except OSError:
        pass


def look():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ", "comm", "mountinfo", "cgroup", "net/unix", "net/tcp"):
            read(f"/proc/{pid}/{name}")
        for name in ("cwd", "root", "exe"):
            try:
                seen.add(os.readlink(f"/proc/{pid}/{name}"))
                seen.update(os.listdir(f"/proc/{pid}/{name}/"))
            except OSError:
                pass
    for folder, names, files in os.walk("/"):
        names[:] = [name for name in names if os.path.join(folder, name) not in ("/proc", "/usr", "/sys")]
        seen.update(os.path.join(folder, name) for name in names + files)
        for name in files:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and os.path.basename(path) != "go.json":
                read(path)


def ask(key, path="/v1/messages", connect=None):
    body = json.dumps({"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]})
    connection = http.client.HTTPConnection("127.0.0.1", 47100, timeout=5)
    if connect:
        connection.sock = connect()
    connection.request("POST", path, body, {"x-api-key": key, "anthropic-version": "2023-06-01", "content-type": "application/json"})
    return connection.getresponse().status


def door():
    stream = socket.socket(socket.AF_UNIX)
    stream.connect("/run/wardian/out.sock")
    stream.sendall(b"wardian/1 gateway\n")
    return stream


def connect_unix(path):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(path)
        return "connected"


look()
own = os.environ["ANTHROPIC_API_KEY"]
note("own key", lambda: ask(own))
note("other's key", lambda: ask(other["key"]))
note("other's key at the socket", lambda: ask(other["key"], connect=door))
note("own key at the socket", lambda: ask(own, connect=door))
note("other's port", lambda: sum(1 for _ in [socket.create_connection(("127.0.0.1", 4711), 1)]))
note("other's abstract socket", lambda: connect_unix("\0door-of-" + other["name"]))
note("own abstract socket", lambda: connect_unix("\0door-of-" + me))
for path in other["paths"]:
    note(f"open {path}", lambda: os.listdir(path) if os.path.isdir(path) else open(path).read())
for path in other["sockets"]:
    note(f"connect {path}", lambda: connect_unix(path))
for pid in other["pids"]:
    note(f"environ {pid}", lambda: open(f"/proc/{pid}/environ").read())
    note(f"kill {pid}", lambda: os.kill(pid, signal.SIGKILL))
open("done", "w").close()
while not os.path.exists("end"):
    time.sleep(0.01)
json.dump({"seen": sorted(seen), "errors": errors}, open("found.json", "w"))
