// Why a model folder, or what a model is asked for, is refused.
#pragma once

#include <string>

namespace dtwin::model {

// Thrown inside csrc/model alone; api.cpp turns it into a status and a message.
struct Refusal {
    int status;        // a dtwin_status
    std::string text;  // as a DTwinInputError of Python says it
};

// The sentence of a refusal: [code] field: what (wanted ...; got ...). fix
inline std::string sentence(const std::string& code, const std::string& field,
                            const std::string& what, const std::string& wanted,
                            const std::string& got, const std::string& fix) {
    std::string found;
    if (!wanted.empty()) found += "wanted " + wanted;
    if (!got.empty()) found += (found.empty() ? "got " : "; got ") + got;
    if (!found.empty()) found = " (" + found + ")";
    return "[" + code + "] " + field + ": " + what + found + ". " + fix;
}

// Of a model folder.
[[noreturn]] void refuse_model(const char* code, const std::string& field, const std::string& what,
                               const std::string& wanted = "", const std::string& got = "");

}  // namespace dtwin::model
