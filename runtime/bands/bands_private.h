/* What the files of bands share. */
#ifndef TRN_BANDS_PRIVATE_H
#define TRN_BANDS_PRIVATE_H

#include "bands.h"

enum { SENSOR_ALIASES = 4 };

typedef struct known_sensor {
    trn_sensor sensor;
    const char *aliases[SENSOR_ALIASES]; /* NULL-terminated if fewer */
} known_sensor;

extern const known_sensor known_sensors[];
extern const size_t known_sensor_count;

#endif
