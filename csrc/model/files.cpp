#include "model/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "dtwin.h"
#include "model/refusal.h"

namespace dtwin::model {
namespace {

constexpr size_t kMostAtOnce = size_t{1} << 30;  // Linux reads no more than 2 GiB a call

std::string reason(int error) { return std::generic_category().message(error); }

[[noreturn]] void refuse_file(const char* code, const std::string& field, const std::string& what,
                              const std::string& fix, const std::string& wanted = "",
                              const std::string& got = "") {
    throw Refusal{DTWIN_ERROR_MODEL, sentence(code, field, what, wanted, got, fix)};
}

}  // namespace

Folder::Folder(const char* path)
    : path_(path), handle_(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (handle_ >= 0) return;
    const int error = errno;
    refuse_file("model_folder", path_, "this is not a model folder",
                "Name the folder that `dtwin train` or `Twin.save` wrote",
                "a folder with model.safetensors and config.json", reason(error));
}

Folder::~Folder() { close(handle_); }

// Without O_NONBLOCK a pipe in a file's place would keep us waiting for a writer.
File::File(const Folder& folder, const char* name, int64_t most)
    : name_(folder.path() + "/" + name),
      handle_(openat(folder.handle(), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)) {
    const int error = errno;
    if (handle_ < 0 && error == ELOOP) {
        refuse_file("file_kind", name_, "this is a symbolic link", "Put the file itself there");
    }
    if (handle_ < 0) {
        refuse_file("file_missing", name_, "this file cannot be opened: " + reason(error),
                    "Check the path and its permissions");
    }
    try {
        struct stat info;
        if (fstat(handle_, &info) != 0 || !S_ISREG(info.st_mode)) {
            refuse_file("file_kind", name_, "this is not a regular file",
                        "Name a file, not a folder, pipe or device");
        }
        size_ = info.st_size;
        if (size_ == 0) {
            refuse_file("file_empty", name_, "this file is empty", "Export the file again");
        }
        if (size_ > most) {
            refuse_file("file_too_large", name_, "this file is larger than the limit",
                        "Copy the model folder again from its source",
                        "at most " + std::to_string(most) + " bytes",
                        std::to_string(size_) + " bytes");
        }
    } catch (...) {
        close(handle_);
        throw;
    }
}

File::~File() { close(handle_); }

bool File::read(void* to, size_t size) {
    auto at = static_cast<char*>(to);
    while (size > 0) {
        const ssize_t got = ::read(handle_, at, std::min(size, kMostAtOnce));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        at += got;
        size -= static_cast<size_t>(got);
    }
    return true;
}

}  // namespace dtwin::model
