/* terrane: Earth-observation encoders on any Vulkan device. This header takes in all doors; see
 * docs/architecture.md. */
#ifndef TERRANE_H
#define TERRANE_H

#include "base.h"
#include "gpu.h"
#include "graph.h"
#include "nn.h"
#include "weights.h"
#include "bands.h"
#include "models.h"
#include "compose.h"
#include "raster.h"
#include "data.h"
#include "export.h"
#include "job.h"

#endif
