"""Looks for a key in everything that a program in a sandbox can read, and asks everything that answers.

What to look for comes masked, so that this program itself does not bring it in. Prints where it was found, as JSON.
"""
import ctypes, glob, json, os, re, socket, stat, sys

CAP = 64 << 20
config = json.load(open(sys.argv[1]))
needles = {form: bytes(byte ^ config["mask"] for byte in masked) for form, masked in config["needles"].items()}
own = {str(os.getpid()), "self", "thread-self"}
found, looked = [], {"files": 0, "processes": 0, "regions": 0, "sockets": 0, "answers": 0}


def look(where, data):
    for form, needle in needles.items():
        if needle in data:
            found.append(f"{form} in {where}")


def read(path):
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
    except OSError:
        return None
    try:
        data = b""
        while len(data) < CAP:
            piece = os.read(handle, 1 << 20)
            if not piece:
                break
            data += piece
        return data
    except OSError:
        return None
    finally:
        os.close(handle)


def memory(pid):
    try:
        maps, mem = open(f"/proc/{pid}/maps").read(), open(f"/proc/{pid}/mem", "rb", 0)
    except OSError:
        return
    for line in maps.splitlines():
        low, high = (int(side, 16) for side in line.split()[0].split("-"))
        if "r" not in line.split()[1] or high - low > CAP:
            continue
        try:
            mem.seek(low)
            data = mem.read(high - low)
        except (OSError, OverflowError, ValueError):
            continue
        looked["regions"] += 1
        look(f"memory of {pid}", data or b"")


def processes():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        looked["processes"] += 1
        for task in [f"/proc/{pid}"] + glob.glob(f"/proc/{pid}/task/*"):
            for name in ("environ", "cmdline", "comm", "maps", "mountinfo", "status", "auxv", "stack"):
                look(f"{task}/{name}", read(f"{task}/{name}") or b"")
        for link in ("cwd", "exe", "root"):
            try:
                look(f"/proc/{pid}/{link}", os.readlink(f"/proc/{pid}/{link}").encode())
            except OSError:
                pass
        for handle in glob.glob(f"/proc/{pid}/fd/*"):
            try:
                kept = stat.S_ISREG(os.stat(handle).st_mode)
                look(handle, os.readlink(handle).encode() + ((open(handle, "rb").read(CAP)) if kept else b""))
            except OSError:
                pass
        if pid not in own:
            memory(pid)


def files():
    """Every file, but those that last changed before the key was made (that time cannot be set)."""
    sockets = []
    for folder, names, entries in os.walk("/"):
        if folder == "/":
            names.remove("proc")
        for entry in entries + [name for name in names if os.path.islink(os.path.join(folder, name))]:
            path = os.path.join(folder, entry)
            try:
                about = os.lstat(path)
            except OSError:
                continue
            if about.st_ctime < config["since"] and not folder.startswith("/sys"):
                continue
            looked["files"] += 1
            look(f"the name {path}", path.encode(errors="surrogateescape"))
            if stat.S_ISREG(about.st_mode):
                look(path, read(path) or b"")
            elif stat.S_ISLNK(about.st_mode):
                look(path, os.readlink(path).encode(errors="surrogateescape"))
            elif stat.S_ISSOCK(about.st_mode):
                sockets.append(path)
    for path in glob.glob("/proc/*") + glob.glob("/proc/net/*") + glob.glob("/proc/sys/kernel/*"):
        if os.path.basename(path) not in ("kmsg", "kcore") and not os.path.isdir(path):
            look(path, read(path) or b"")
    return sockets


def asked():
    """Good and bad questions; each answer is looked through."""
    virtual = os.environ.get("ANTHROPIC_API_KEY", "")
    good = {"model": "claude-haiku-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": "search"}]}

    def http(method, path, body=b"", key=virtual, more=""):
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {key}\r\n"
        head += f"anthropic-version: 2023-06-01\r\ncontent-length: {len(body)}\r\n{more}\r\n"
        return head.encode() + body

    def message(**change):
        return json.dumps({**good, **change}).encode()

    return [
        http("POST", "/v1/messages", message()),
        http("POST", "/v1/messages", message(stream=True)),
        http("POST", "/v1/messages", message(messages=[{"role": "user", "content": "an error, please"}])),
        http("POST", "/v1/messages", message(messages=[{"role": "user", "content": "break off"}], stream=True)),
        http("POST", "/v1/messages", message(messages=[{"role": "user", "content": "nothing fits"}])),
        http("POST", "/v1/messages", message(model="no-such-model")),
        http("POST", "/v1/messages", message(max_tokens="many")),
        http("POST", "/v1/messages", message(max_tokens=10**12)),
        http("POST", "/v1/messages", message(tools=[{"type": "web_fetch_20250910", "name": "web_fetch"}])),
        http("POST", "/v1/messages", b'{"model": '),
        http("POST", "/v1/messages", b"\xff\xfe"),
        http("POST", "/v1/messages", message(), key="sk-ant-wrong"),
        http("POST", "/v1/messages", message(), key=""),
        http("POST", "/v1/messages", message(), more="authorization: Bearer sk-ant-other\r\n"),
        http("POST", "/v1/messages", message(), more="x-api-key: again\r\nx-forwarded-host: x\r\n"),
        http("POST", "/v1/messages/count_tokens", message()),
        http("GET", "/v1/models"),
        http("GET", "/v1/models/claude-haiku-4-5"),
        http("GET", "/v1/organizations/api_keys"),
        http("GET", "/v1/files"),
        http("GET", "/"),
        http("GET", "/../../etc/passwd"),
        http("GET", "/debug/vars"),
        http("TRACE", "/v1/messages", more="max-forwards: 0\r\n"),
        http("OPTIONS", "*"),
        http("CONNECT", "api.anthropic.com:443"),
        http("GET", "http://api.anthropic.com/v1/models"),
        b"GET /v1/models HTTP/0.9\r\n\r\n",
        b"nonsense\r\n\r\n" * 3,
        b"POST /v1/messages HTTP/1.1\r\nhost: x\r\n" + b"a: " + b"b" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"",
    ]


def talk(where, connect, opening, question):
    answer = b""
    try:
        with connect() as stream:
            stream.settimeout(5)
            stream.sendall(opening + question)
            # Who has asked properly waits: to the gateway, one that closes its side has left.
            if b"connection: close" not in question:
                stream.shutdown(socket.SHUT_WR)
            while piece := stream.recv(1 << 16):
                answer += piece
    except OSError as error:
        answer += str(error).encode()
    looked["answers"] += answer.startswith(b"HTTP/1.1")
    look(f"the answer of {where} to {question[:60]!r}", answer)


def sockets(paths):
    doors = [("127.0.0.1:47100", lambda: socket.create_connection(("127.0.0.1", 47100), 5), [b""])]
    for path in paths:
        looked["sockets"] += 1

        def connect(path=path):
            stream = socket.socket(socket.AF_UNIX)
            stream.connect(path)
            return stream

        doors.append((path, connect, [b"wardian/1 gateway\n", b"", b"wardian/1 control\n", b"wardian/9\n"]))
    for where, connect, openings in doors:
        for opening in openings:
            for question in asked() if opening in (b"", b"wardian/1 gateway\n") else [b"", b"x"]:
                talk(where, connect, opening, question)


def everything():
    processes()
    sockets(files())


everything()
first, found[:] = list(found), []
# The same search finds it where it is: written to files, in the environment and the memory of another process.
for form, needle in needles.items():
    with open(f"planted-{form}", "wb") as planted:
        planted.write(os.urandom(config["offset"]) + needle + b"\n")
raw = needles["raw"].decode()
read_end, write_end = os.pipe()
ready, _ = pipe = os.pipe()
child = os.fork()
if child == 0:
    os.close(write_end)
    program = "import os, sys; os.write(int(sys.argv[2]), b'x'); os.read(int(sys.argv[1]), 1)"
    for handle in (read_end, pipe[1]):
        os.set_inheritable(handle, True)
    os.execve(sys.executable, ["python3", "-c", program, str(read_end), str(pipe[1])], {"PLANTED": raw})
os.read(ready, 1)
processes()
files()
os.close(write_end)
os.waitpid(child, 0)
print(json.dumps({"found": first, "planted": found, "looked": looked}))
