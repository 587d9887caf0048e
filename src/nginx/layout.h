/*
 * layout - whether nginx's structs are those that this module was built with.
 *
 * nginx refuses a module of another version, or of some other options. It loads
 * one that was built from other sources of its version: nginx's own where
 * OpenResty's are patched, or those of another bundle. Such a module would find
 * other members of a request than it looks for.
 */
#ifndef BUFPOOL_NGINX_LAYOUT_H
#define BUFPOOL_NGINX_LAYOUT_H

#include <ngx_config.h>
#include <ngx_core.h>

/* NGX_OK where the structs fit. NGX_ERROR where they do not, or without memory,
 * when the log has been told why. To be called while the configuration is read,
 * as a postconfiguration. */
ngx_int_t ngx_http_bufpool_fits(ngx_conf_t *cf);

#endif
