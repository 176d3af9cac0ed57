// The files of a model folder, read once from front to back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace dtwin::model {

// Bytes that are read in order: a file's, or those of a fuzzer.
class Source {
  public:
    virtual ~Source() = default;
    virtual const std::string& name() const = 0;  // what messages call it
    virtual int64_t size() const = 0;
    virtual bool read(void* to, size_t size) = 0;  // false where there are fewer
};

// An open folder. Files in it are opened by name from there, so that all are of one folder even if
// its path comes to mean another meanwhile.
class Folder {
  public:
    explicit Folder(const char* path);  // throws Refusal
    ~Folder();
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    const std::string& path() const { return path_; }
    int handle() const { return handle_; }

  private:
    const std::string path_;
    int handle_;
};

// A regular file of a folder, no link, of 1 to `most` bytes.
class File : public Source {
  public:
    File(const Folder& folder, const char* name, int64_t most);  // throws Refusal
    ~File() override;
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    const std::string& name() const override { return name_; }
    int64_t size() const override { return size_; }
    bool read(void* to, size_t size) override;

  private:
    const std::string name_;
    int handle_;
    int64_t size_ = 0;
};

}  // namespace dtwin::model
