// fold.bin: the ledger's state and a coarse series for the part of a recording whose events were given up.
#pragma once

#include <string>
#include <vector>

#include "ledger.h"
#include "series.h"

namespace gpumem {

// Notes the live device bytes that `event`, just applied to `ledger`, left behind.
void note_level(const Ledger& ledger, Series& series, const Event& event);

// Writes atomically: a reader sees the old file or the new one.
bool write_fold_file(const std::string& path, const Ledger::Tables& tables, const std::vector<SeriesRow>& series);

// False when the file is no fold of ours or is damaged; `why` says which.
bool read_fold_file(const std::string& path, Ledger::Tables& tables, std::vector<SeriesRow>& series, std::string& why);

}  // namespace gpumem
