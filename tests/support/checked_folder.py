"""A folder with every kind of file, to be checked, and what is no file in it."""

from tests.support import bad_images

BAD = bad_images.bad_files()
CONVERTIBLE = bad_images.convertible_files()
SOUND = bad_images.sound_files()
NO_FILE = {
    "link.jpg": "a link to nothing",
    "folder.jpg": "a folder",
    "socket.png": "not a regular file",
    "unreadable.png": "cannot be read (",
}
