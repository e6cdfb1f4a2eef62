"""Files as an attacker or a bad disk would leave them: any contents, with a right digest."""

import hashlib
import io
import json
import zipfile


def parts(path):
    """The members of a saved file by name."""
    with zipfile.ZipFile(path) as members:
        return {info.filename: members.read(info) for info in members.infolist()}


def archive(members, method=zipfile.ZIP_STORED):
    """An archive of `(name, contents)`, with room for a digest; a name may come twice."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as written:
        for name, contents in members:
            written.writestr(zipfile.ZipInfo(name), contents, method)
        written.comment = b"0" * 64
    return file.getvalue()


def sealed(content):
    """The same with the digest that belongs to it."""
    body = bytes(content[:-64])
    return body + hashlib.sha256(body).hexdigest().encode()


def with_header(path, header):
    """A saved file with another header: bytes, or fields to change."""
    members = parts(path)
    if isinstance(header, dict):
        header = json.dumps(json.loads(members["header.json"]) | header).encode()
    members["header.json"] = header
    return sealed(archive(members.items()))


def with_description(path, name, **changes):
    """A saved file whose header says something else of one array."""
    arrays = json.loads(parts(path)["header.json"])["arrays"]
    arrays[name] |= changes
    return with_header(path, {"arrays": arrays})
