/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_PLACES_H
#define NODE_PLACES_H

/* places.h - where things are, in the folder of a store (image/store.h) beside its images */

#define TEMPLATES_FOLDER "templates"     /* a folder for each, of the template's name */
#define SANDBOXES_FOLDER "sandboxes"     /* the same */
#define TEMPLATE_RECORD  "template.json" /* in a template's folder */
#define SANDBOX_RECORD \
    "sandbox.json" /* in a sandbox's folder; its field "template" names what it is of */

#endif
