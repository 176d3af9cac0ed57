// Where clang's libFuzzer is not: TARGET SECONDS SEED FILE... runs each file, each of its
// beginnings, and random changes of it for so long. A fault ends the program by its sanitizer.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Random = std::mt19937_64;

// Exactly as many bytes as there are: a sanitizer sees each read beyond them.
void run(const std::string& text) {
    const std::vector<uint8_t> bytes(text.begin(), text.end());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

std::string changed(std::string text, const std::vector<std::string>& corpus, Random& random) {
    const auto below = [&](size_t n) { return n ? random() % n : 0; };
    const char* const kNumbers[] = {
        "0", "-1", "9223372036854775807", "18446744073709551616", "1e9", "1e-3", "16777216", "0.5"};
    for (size_t n = 1 + below(4); n > 0 && !text.empty(); --n) {
        const size_t at = below(text.size());
        switch (below(7)) {
            case 0:
                text[at] = static_cast<char>(text[at] ^ 1 << below(8));
                break;
            case 1:
                text[at] = static_cast<char>(random());
                break;
            case 2:
                text.erase(at, 1 + below(16));
                break;
            case 3:
                text.insert(below(text.size()), text.substr(at, 1 + below(32)));
                break;
            case 4:
                text.resize(at);
                break;
            case 5: {  // a number in place of another
                const size_t digit = text.find_first_of("0123456789", at);
                if (digit == text.npos) break;
                const size_t end = text.find_first_not_of("0123456789.", digit);
                text.replace(digit, end - digit, kNumbers[below(std::size(kNumbers))]);
                break;
            }
            default: {  // the rest of another file
                const std::string& other = corpus[below(corpus.size())];
                text = text.substr(0, at) + other.substr(below(other.size()));
            }
        }
    }
    return text;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) return 2;
    const double seconds = std::atof(argv[1]);
    Random random(std::strtoull(argv[2], nullptr, 10));
    std::vector<std::string> corpus;
    for (int i = 3; i < argc; ++i) {
        std::ifstream file(argv[i], std::ios::binary);
        corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
        if (corpus.back().empty()) return 2;
    }
    size_t cuts = 0, changes = 0;
    for (const std::string& text : corpus) {
        for (size_t size = 0; size <= text.size(); ++size, ++cuts) run(text.substr(0, size));
    }
    const auto now = std::chrono::steady_clock::now;
    const auto end = now() + std::chrono::duration<double>(seconds);
    for (; now() < end; ++changes) run(changed(corpus[random() % corpus.size()], corpus, random));
    std::printf("%zu cuts, %zu changes\n", cuts, changes);
    return 0;
}
