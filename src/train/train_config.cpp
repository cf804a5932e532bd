#include "train/train_config.h"

#include "model/sharing/regex_of.h"

namespace tessera {

void TrainConfig::check(SectionCheck& own) const { check_patterns(own, "freeze", freeze); }

}  // namespace tessera
