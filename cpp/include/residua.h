/* SPDX-License-Identifier: Apache-2.0 */
/* The same header under its short name. */
#include "residua/residua.h"
